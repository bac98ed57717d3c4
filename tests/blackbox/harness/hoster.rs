//! A DNS hoster: a name server, an HTTP API by which customers set TXT records there, and the shell script that uses it.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::bind::Bind;
use super::scripted::{Scripted, response};
use super::setup::Setup;

/// Running, with one zone. Records are there as soon as the API has answered, unless they are held back.
pub struct Hoster {
    bind: Arc<Bind>,
    zone: String,
    api: Scripted,
    dir: TempDir,
    /// Records that are held back; `None`: none are.
    held: Arc<Mutex<Option<Vec<Record>>>>,
}

/// Name and value.
type Record = (String, String);

impl Hoster {
    #[track_caller]
    pub fn start(zone: &str) -> Self {
        let bind = Arc::new(Bind::setup().open_zone(zone).start());
        let held = Arc::new(Mutex::new(None::<Vec<Record>>));
        let (server, own, holding) = (Arc::clone(&bind), zone.to_owned(), Arc::clone(&held));
        let api = Scripted::each(move |request| {
            let Call { verb, name, value } = Call::of(request.line());
            let mut held = holding.lock().expect("hoster");
            match (&mut *held, verb.as_str()) {
                (Some(held), "present") => held.push((name, value)),
                (Some(held), "clear") if held.contains(&(name.clone(), value.clone())) => {
                    held.retain(|record| *record != (name.clone(), value.clone()));
                }
                (_, "present") => server.add_txt(&own, &name, &value),
                (_, "clear") => server.remove_txt(&own, &name, &value),
                (_, other) => panic!("neither present nor clear: {other}"),
            }
            response("done")
        });
        let hoster = Self { bind, zone: zone.to_owned(), api, dir: TempDir::new().expect("temporary folder"), held };
        hoster.script("");
        hoster
    }

    /// The script does this first. What it is called with is `$1` (`present`, `clear`), `$2` and `$3`.
    pub fn script(&self, first: &str) {
        let url = self.api.url();
        let text = format!("#!/bin/sh\n{first}\nexec curl -sS --fail \"{url}/$1/$2/$3\"\n");
        fs::write(self.dir.path().join("hook"), text).expect("script");
    }

    /// The script does this last, when the API has answered.
    pub fn script_after(&self, last: &str) {
        let url = self.api.url();
        let text = format!("#!/bin/sh\ncurl -sS --fail \"{url}/$1/$2/$3\" || exit\n{last}\n");
        fs::write(self.dir.path().join("hook"), text).expect("script");
    }

    /// Beside the script: `$0.ENDING`.
    pub fn beside_script(&self, ending: &str) -> PathBuf {
        self.dir.path().join(format!("hook.{ending}"))
    }

    /// Its name server.
    pub fn bind(&self) -> &Bind {
        &self.bind
    }

    /// From now on what is set through the API is not to be seen.
    pub fn hold_back(&self) {
        *self.held.lock().expect("hoster") = Some(Vec::new());
    }

    /// Everything that is held back is to be seen from now on, and so is what comes.
    pub fn publish(&self) {
        for (name, value) in self.held.lock().expect("hoster").take().unwrap_or_default() {
            self.bind.add_txt(&self.zone, &name, &value);
        }
    }

    /// What the script asked for so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.api.requests().iter().map(|request| Call::of(request.line())).collect()
    }
}

/// One call of the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `present` or `clear`.
    pub verb: String,
    pub name: String,
    pub value: String,
}

impl Call {
    /// Of `GET /VERB/NAME/VALUE HTTP/1.1`.
    fn of(line: &str) -> Self {
        let target = line.split(' ').nth(1).expect("a request line");
        let words: Vec<_> = target.split('/').skip(1).map(str::to_owned).collect();
        let [verb, name, value] = words.try_into().expect("three words");
        Self { verb, name, value }
    }
}

impl Setup {
    /// `[acme.dns]`: that hoster's script, and his name server is asked whether records are there.
    pub fn acme_hook(self, hoster: &Hoster) -> Self {
        let hook = hoster.dir.path().join("hook");
        self.set("acme.dns.provider", "'exec'")
            .set("acme.dns.command", &format!("['sh', '{}']", hook.display()))
            .set("acme.dns.resolvers", &format!("['{}']", hoster.bind.server()))
    }
}
