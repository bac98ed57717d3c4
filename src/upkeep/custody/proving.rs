//! Whether what is kept opens: every certificate is tried once, and again after the vault was unlocked anew. One that
//! does not open is then known, and no domain counts on it, before a handshake or the end of another one needs it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use super::Custody;
use super::attend::pen;
use crate::control::{Control, Kept, KeptCertificates};
use crate::store::inventory::{CertificateId, Role};

/// Keys opened at once, and the pause behind them: half a hundredth of a processor, and half an hour for 100,000.
const AT_ONCE: usize = 5;
const PAUSE: Duration = Duration::from_millis(100);
/// How often is looked whether there is anything to try.
const LOOK: Duration = Duration::from_secs(1);

/// How far it got.
#[derive(Debug, Default, PartialEq)]
struct Progress {
    /// The state of the vault with which it was tried.
    generation: u64,
    /// The highest number among what was tried, or is about to be.
    last: i64,
}

impl Progress {
    /// What is to be tried with the vault as it is: standbys first, as nobody else will try them for a long time.
    fn due(&mut self, generation: u64, kept: &KeptCertificates) -> Vec<Arc<Kept>> {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
        let mut due: Vec<_> = kept.after(CertificateId(self.last)).cloned().collect();
        self.last = due.last().map_or(self.last, |kept| kept.id.0);
        due.sort_by_key(|kept| kept.role != Role::Standby);
        due
    }
}

/// Tries what is kept, slowly. Does not return.
pub(super) async fn prove(custody: Arc<Custody>, control: Arc<Mutex<Control>>) {
    let mut progress = Progress::default();
    loop {
        sleep(LOOK).await;
        if !custody.is_unlocked() {
            continue;
        }
        let generation = custody.opened.generation();
        let due = progress.due(generation, pen(&control).await.kept());
        for some in due.chunks(AT_ONCE) {
            // Whoever looks at the keys that do not open says so: see `issuing`.
            some.iter().for_each(|kept| _ = kept.certificate.opens());
            sleep(PAUSE).await;
            if custody.opened.generation() != generation {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::fixture::pair;
    use crate::name::DomainName;

    #[test]
    fn each_is_tried_once_for_each_state_of_the_vault() {
        let subject = DomainName::parse("www.example.com").unwrap();
        let certificate = pair(&["www.example.com"]).make();
        let mut all = KeptCertificates::default();
        let keep = |all: &mut KeptCertificates, id, role| {
            let (subject, certificate) = (subject.clone(), Arc::clone(&certificate));
            all.put(Arc::new(Kept {
                id: CertificateId(id),
                subject,
                tenant: None,
                role,
                is_on_demand: false,
                ca: "".into(),
                certificate,
                ari: None,
            }));
        };
        let due = |progress: &mut Progress, generation, all: &KeptCertificates| {
            progress.due(generation, all).iter().map(|kept| kept.id.0).collect::<Vec<i64>>()
        };
        let mut progress = Progress::default();
        assert_eq!(due(&mut progress, 1, &all), [0_i64; 0]);
        for (id, role) in [(1, Role::Own), (2, Role::Standby), (3, Role::Own), (4, Role::Standby)] {
            keep(&mut all, id, role);
        }
        assert_eq!(due(&mut progress, 1, &all), [2, 4, 1, 3]);
        keep(&mut all, 5, Role::Own);
        assert_eq!(due(&mut progress, 1, &all), [5]);
        assert_eq!(due(&mut progress, 1, &all), [0_i64; 0]);
        assert_eq!(due(&mut progress, 2, &all), [2, 4, 1, 3, 5]);
    }
}
