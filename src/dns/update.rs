//! Dynamic updates (RFC 2136): one value added to, or taken from, the TXT records of a name.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode, update_message};
use hickory_resolver::proto::rr::rdata::TXT;
use hickory_resolver::proto::rr::rdata::tsig::TsigError;
use hickory_resolver::proto::rr::{Name, RData, RecordSet, RecordType};
use tokio::time::timeout;

use super::error::{DnsError, Failure, UpdateRefusal, code_name};
use super::exchange::{of_io, over_tcp};
use super::tsig::Key;
use crate::clock::UnixTime;

/// How long an update may take: a primary may write it to disk first.
pub(super) const UPDATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Octets in one string of a TXT record (RFC 1035, section 3.3).
const TXT_STRING_MAX: usize = 255;

/// A zone's primary, and the key that it knows us by.
pub(super) struct Primary {
    pub(super) server: SocketAddr,
    pub(super) key: Key,
    /// Wall time; tests set it wrong.
    pub(super) now: fn() -> UnixTime,
}

impl Primary {
    /// Adds one value (section 2.5.1). One that is there already stays as it is, and the others too.
    pub(super) async fn add(&self, zone: &Name, at: &Name, value: &str, ttl_secs: u32) -> Result<(), DnsError> {
        let records = self.records(zone, at, value, ttl_secs)?;
        self.send(update_message::append(records, zone.clone(), false, false), zone, at).await
    }

    /// Deletes one value (section 2.5.4). It is no error if it is gone already.
    pub(super) async fn delete(&self, zone: &Name, at: &Name, value: &str) -> Result<(), DnsError> {
        let records = self.records(zone, at, value, 0)?;
        self.send(update_message::delete_by_rdata(records, zone.clone(), false), zone, at).await
    }

    fn records(&self, zone: &Name, at: &Name, value: &str, ttl_secs: u32) -> Result<RecordSet, DnsError> {
        // hickory panics over a name outside of the zone.
        if !zone.zone_of(at) {
            return Err(self.error(zone, UpdateRefusal::NotInZone(at.to_ascii())));
        }
        let strings = value.as_bytes().chunks(TXT_STRING_MAX).collect();
        let mut records = RecordSet::with_ttl(at.clone(), RecordType::TXT, ttl_secs);
        records.add_rdata(RData::TXT(TXT::from_bytes(strings)));
        Ok(records)
    }

    async fn send(&self, mut message: Message, zone: &Name, at: &Name) -> Result<(), DnsError> {
        let fail = |why| self.error(zone, why);
        let now = (self.now)();
        let garbled = |error: &dyn std::fmt::Display| fail(UpdateRefusal::Failed(Failure::Garbled(error.to_string())));
        let mac = self.key.sign(&mut message, now).map_err(|error| garbled(&error))?;
        let sent = message.to_vec().map_err(|error| garbled(&error))?;
        let octets = match timeout(UPDATE_TIMEOUT, over_tcp(self.server, &sent)).await {
            Ok(Ok(octets)) => octets,
            Ok(Err(error)) => return Err(fail(UpdateRefusal::Failed(of_io(&error, UPDATE_TIMEOUT)))),
            Err(_) => return Err(fail(UpdateRefusal::Failed(Failure::Silent(UPDATE_TIMEOUT)))),
        };
        let answer = Message::from_vec(&octets).map_err(|error| garbled(&error))?;
        if answer.id != message.id {
            return Err(fail(UpdateRefusal::Failed(Failure::Garbled("it answers another question".into()))));
        }
        if let Some(why) = self.refusal(&answer, at, now) {
            return Err(fail(why));
        }
        // Only good news have to be proven: bad ones are believed as they are, and change nothing.
        let signed_secs = self.key.verify(&octets, &mac).map_err(|why| fail(UpdateRefusal::Unproven(why.into())))?;
        if !Key::is_fresh(signed_secs, now) {
            return Err(fail(UpdateRefusal::Unproven("it is an old one".into())));
        }
        Ok(())
    }

    fn refusal(&self, answer: &Message, at: &Name, now: UnixTime) -> Option<UpdateRefusal> {
        let signature = answer.signature().map(|record| &record.data);
        // What is wrong with the key is said in the signature, and NOTAUTH beside it (RFC 8945, section 5.2).
        match signature.and_then(|tsig| tsig.error) {
            Some(TsigError::BadKey) => return Some(UpdateRefusal::UnknownKey { algorithm: self.key.algorithm }),
            Some(TsigError::BadSig) => return Some(UpdateRefusal::WrongSecret),
            Some(TsigError::BadTime) => {
                let theirs = signature.and_then(|tsig| [[0, 0].as_slice(), &tsig.other].concat().try_into().ok());
                let theirs = theirs.and_then(|octets| i64::try_from(u64::from_be_bytes(octets)).ok());
                return Some(UpdateRefusal::WrongTime { ahead_secs: theirs.map(|theirs| theirs - now.secs()) });
            }
            Some(TsigError::BadTrunc) => return Some(UpdateRefusal::Code("BADTRUNC".into())),
            Some(TsigError::Unknown(code)) => return Some(UpdateRefusal::Code(format!("TSIG error {code}"))),
            None => {}
        }
        match answer.response_code {
            ResponseCode::NoError => None,
            ResponseCode::Refused => Some(UpdateRefusal::Refused),
            ResponseCode::NotAuth => Some(UpdateRefusal::NotAuthoritative),
            ResponseCode::NotZone => Some(UpdateRefusal::NotInZone(at.to_ascii())),
            other => Some(UpdateRefusal::Code(code_name(other))),
        }
    }

    fn error(&self, zone: &Name, why: UpdateRefusal) -> DnsError {
        let (zone, key_name) = (plain(zone), plain(&self.key.name));
        DnsError::Update { server: self.server, zone, key_name, why }
    }
}

/// A name without the dot at its end, as people write it.
pub(super) fn plain(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    text.strip_suffix('.').filter(|rest| !rest.is_empty()).map(str::to_owned).unwrap_or(text)
}
