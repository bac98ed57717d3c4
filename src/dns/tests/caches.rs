//! A resolver that remembers what does not exist: BIND, which asks another one for all that it does not know.

use super::*;

/// A `named` with a cache in front of `world`.
struct Cache {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Cache {
    fn start(world: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (path, address) = (directory.path().display(), closed_port());
        let config = format!(
            "options {{ directory \"{path}\"; pid-file \"{path}/pid\"; session-keyfile \"{path}/session\";
               listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; dnssec-validation no; empty-zones-enable no;
               recursion yes; allow-query {{ any; }}; min-ncache-ttl 60;
               forward only; forwarders port {world_port} {{ {world_ip}; }}; }};
             controls {{ }};",
            port = address.port(),
            world_port = world.port(),
            world_ip = world.ip(),
        );
        std::fs::write(directory.path().join("named.conf"), config).unwrap();
        let mut command = Command::new("named");
        command.args(["-g", "-4", "-n", "1", "-c"]).arg(directory.path().join("named.conf"));
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("`named` is missing: install bind9");
        let cache = Self { child, address, _directory: directory };
        let patience = Instant::now() + Duration::from_secs(10);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        while Instant::now() < patience {
            if std::net::TcpStream::connect(address).is_ok()
                && runtime.block_on(Resolver::new(&[address]).txt("txt.example.test")).is_ok()
            {
                return cache;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("named did not answer: {}", std::fs::read_to_string(cache._directory.path().join("log")).unwrap());
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// An own name server of the zones, and a cache in front of it.
async fn cached() -> (Named, Cache) {
    let named = named().await;
    let world = named.address;
    let cache = tokio::task::spawn_blocking(move || Cache::start(world)).await.unwrap();
    (named, cache)
}

/// That the record is not there yet is what nobody may ask the cache: it would say so for a minute.
#[tokio::test]
async fn a_resolver_with_a_cache_is_not_asked_for_a_record_before_it_is_set() {
    let (named, cache) = cached().await;
    let hoster = super::records(&named);
    let asking = open(&exec(&["true"], cache.address)).with_zones_at(named.address.port());
    for name in ["_acme-challenge.new.example.test", "_acme-challenge.delegated.example.test"] {
        let shown = asking.place(name, "value").await.unwrap();
        // The program does nothing; somebody else sets it.
        hoster.present(name, "value").await.unwrap();
        asking.seen(&shown).await.unwrap();
    }
    // Where no name server of the zone can be reached, the cache is asked all the same.
    let cut_off = open(&exec(&["true"], cache.address)).with_zones_at(closed_port().port());
    let shown = cut_off.place("_acme-challenge.www.example.test", "value").await.unwrap();
    assert_eq!((&*shown.at, &*shown.zone), ("_acme-challenge.www.example.test", "example.test"));
}

#[tokio::test]
async fn a_resolver_with_a_cache_is_not_asked_for_a_record_before_its_zone_has_it() {
    let (named, cache) = cached().await;
    let (hoster, mut dns) = (super::records(&named), exec(&["true"], cache.address));
    dns.propagation_timeout = Duration::from_secs(20);
    let asking = Arc::new(open(&dns).with_zones_at(named.address.port()));
    let (name, zone) = ("_acme-challenge.late.example.test".to_owned(), "example.test".to_owned());
    let shown = Shown { at: name.clone(), name: name.clone(), zone, value: "late".into() };
    let waiting = tokio::spawn(async move { asking.seen(&shown).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished(), "it was not there yet");
    hoster.present(&name, "late").await.unwrap();
    waiting.await.unwrap().unwrap();
}
