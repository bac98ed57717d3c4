//! Bodies on their way, in both directions, piece by piece and never copied.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::forward;
use super::serve::Attendance;
use crate::origin::{IdleTimer, OriginBody, Upload};
use crate::refusal::{OriginFault, Refusal};

/// A request's body towards the origin: within the domain's size, and never still for too long.
#[derive(Debug, Default)]
pub struct RequestBody(Option<Streaming>);

#[derive(Debug)]
struct Streaming {
    incoming: Incoming,
    /// Bytes that may still come; `None`: as many as there are.
    allowance: Option<u64>,
    idle: IdleTimer,
    upload: Rc<Upload>,
    /// The request goes on until its body has come, also when it was answered before.
    attendance: Option<Rc<Attendance>>,
}

impl RequestBody {
    /// A body that streams `incoming`, and where to see how far it has come.
    pub fn streaming(incoming: Incoming, max_bytes: Option<u64>, idle: Duration) -> (Self, Rc<Upload>) {
        let upload = Rc::new(Upload::default());
        let idle = IdleTimer::new(idle);
        (
            Self(Some(Streaming {
                incoming,
                allowance: max_bytes,
                idle,
                upload: Rc::clone(&upload),
                attendance: None,
            })),
            upload,
        )
    }
}

impl RequestBody {
    pub(super) fn attended_by(&mut self, attendance: &Rc<Attendance>) {
        if let Some(body) = &mut self.0 {
            body.attendance = Some(Rc::clone(attendance));
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Refusal;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Refusal>>> {
        let Some(body) = &mut self.get_mut().0 else { return Poll::Ready(None) };
        let mut frame = match Pin::new(&mut body.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(Refusal::BodyMalformed))),
            Poll::Ready(None) => {
                body.upload.moved();
                body.attendance = None;
                return Poll::Ready(None);
            }
            Poll::Pending => {
                body.upload.awaits_client();
                ready!(body.idle.poll_expired(cx));
                return Poll::Ready(Some(Err(Refusal::BodyTimeout)));
            }
        };
        body.idle.progress();
        body.upload.moved();
        if let Some(data) = frame.data_ref() {
            let bytes = data.len() as u64;
            if let Some(allowance) = &mut body.allowance {
                match allowance.checked_sub(bytes) {
                    Some(left) => *allowance = left,
                    None => return Poll::Ready(Some(Err(Refusal::BodyTooLarge))),
                }
            }
        } else if let Some(trailers) = frame.trailers_mut() {
            forward::filter_trailers(trailers);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), |body| body.incoming.size_hint())
    }
}

/// An answer's body towards the client.
pub struct Body {
    kind: Kind,
    /// The request that this is the answer to ends when its body does.
    attendance: Option<Rc<Attendance>>,
    /// Whether the protocol has a piece that it has not come back for.
    is_in_hand: bool,
}

enum Kind {
    Page(Bytes),
    Origin(OriginBody<RequestBody>),
}

impl Body {
    /// Nothing.
    pub fn empty() -> Self {
        Self::page(Bytes::new())
    }

    /// A page of ours.
    pub fn page(page: Bytes) -> Self {
        Self { kind: Kind::Page(page), attendance: None, is_in_hand: false }
    }

    /// The origin's.
    pub fn origin(body: OriginBody<RequestBody>) -> Self {
        Self { kind: Kind::Origin(body), attendance: None, is_in_hand: false }
    }

    pub(super) fn attended_by(mut self, attendance: Rc<Attendance>) -> Self {
        self.attendance = Some(attendance);
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = OriginFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, OriginFault>>> {
        let this = self.get_mut();
        this.set_in_hand(false);
        let polled = this.poll_kind(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            if let (Some(attendance), Some(data)) = (&this.attendance, frame.data_ref()) {
                attendance.sent(data.len());
            }
            this.set_in_hand(true);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Page(page) => page.is_empty(),
            Kind::Origin(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Page(page) => SizeHint::with_exact(page.len() as u64),
            Kind::Origin(body) => body.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.set_in_hand(false);
    }
}

impl Body {
    fn set_in_hand(&mut self, is_in_hand: bool) {
        if let Some(attendance) = &self.attendance
            && std::mem::replace(&mut self.is_in_hand, is_in_hand) != is_in_hand
        {
            match is_in_hand {
                true => attendance.connection().hand_over(),
                false => attendance.connection().hand_empty(),
            }
        }
    }

    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, OriginFault>>> {
        match &mut self.kind {
            Kind::Page(page) if page.is_empty() => Poll::Ready(None),
            Kind::Page(page) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(page))))),
            Kind::Origin(body) => {
                let mut polled = ready!(http_body::Body::poll_frame(Pin::new(body), cx));
                match &mut polled {
                    Some(Ok(frame)) => {
                        if let Some(trailers) = frame.trailers_mut() {
                            forward::filter_trailers(trailers);
                        }
                    }
                    Some(Err(fault)) => {
                        if let Some(attendance) = &self.attendance {
                            attendance.origin_failed(*fault);
                        }
                    }
                    None => {}
                }
                Poll::Ready(polled)
            }
        }
    }
}
