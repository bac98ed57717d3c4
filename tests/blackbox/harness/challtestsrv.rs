//! A DNS server whose answers a test puts in, one by one: Pebble's `pebble-challtestsrv`, as a DNS server alone.

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;

use serde_json::{Value, json};

use super::answer::read_answer;
use super::nginx::free_port;
use super::process::Process;
use super::{PATIENCE, eventually};

/// Running on free ports. Answers A with 127.0.0.1 for every name, and nothing else, until told otherwise.
pub struct ChallTestSrv {
    _process: Process,
    dns: SocketAddr,
    management: SocketAddr,
}

impl ChallTestSrv {
    #[track_caller]
    pub fn start() -> Self {
        let [dns, management] = [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut command = Command::new("pebble-challtestsrv");
        command.args([
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-defaultIPv4",
            "127.0.0.1",
            "-defaultIPv6",
            "",
        ]);
        command.args(["-dns01", &dns.to_string(), "-management", &management.to_string()]);
        let server = Self { _process: Process::spawn(&mut command), dns, management };
        eventually("challtestsrv answers", || {
            let listens = TcpStream::connect(server.dns).is_ok() && TcpStream::connect(server.management).is_ok();
            listens.then_some(())
        });
        server
    }

    /// Where it answers, over UDP and TCP.
    pub fn server(&self) -> SocketAddr {
        self.dns
    }

    /// The A record of every name without one; `None`: there is none.
    pub fn default_ipv4(&self, address: Option<Ipv4Addr>) {
        self.post("set-default-ipv4", &json!({ "ip": address.map(|a| a.to_string()).unwrap_or_default() }));
    }

    /// The AAAA record of every name without one; `None`: there is none.
    pub fn default_ipv6(&self, address: Option<Ipv6Addr>) {
        self.post("set-default-ipv6", &json!({ "ip": address.map(|a| a.to_string()).unwrap_or_default() }));
    }

    pub fn add_a(&self, name: &str, addresses: &[Ipv4Addr]) {
        self.post("add-a", &json!({ "host": name, "addresses": addresses }));
    }

    pub fn clear_a(&self, name: &str) {
        self.post("clear-a", &json!({ "host": name }));
    }

    pub fn add_aaaa(&self, name: &str, addresses: &[Ipv6Addr]) {
        self.post("add-aaaa", &json!({ "host": name, "addresses": addresses }));
    }

    pub fn clear_aaaa(&self, name: &str) {
        self.post("clear-aaaa", &json!({ "host": name }));
    }

    /// Adds CAA records, each a tag and a value: `("issue", "ca.test")`.
    pub fn add_caa(&self, name: &str, policies: &[(&str, &str)]) {
        let policies: Vec<_> = policies.iter().map(|(tag, value)| json!({ "tag": tag, "value": value })).collect();
        self.post("add-caa", &json!({ "host": name, "policies": policies }));
    }

    pub fn clear_caa(&self, name: &str) {
        self.post("clear-caa", &json!({ "host": name }));
    }

    pub fn set_cname(&self, name: &str, target: &str) {
        self.post("set-cname", &json!({ "host": name, "target": absolute(target) }));
    }

    pub fn clear_cname(&self, name: &str) {
        self.post("clear-cname", &json!({ "host": name }));
    }

    /// Adds a TXT record beside those that the name has.
    pub fn add_txt(&self, name: &str, value: &str) {
        self.post("set-txt", &json!({ "host": absolute(name), "value": value }));
    }

    pub fn clear_txt(&self, name: &str) {
        self.post("clear-txt", &json!({ "host": absolute(name) }));
    }

    /// Answers every question about the name with SERVFAIL.
    pub fn set_servfail(&self, name: &str) {
        self.post("set-servfail", &json!({ "host": name }));
    }

    pub fn clear_servfail(&self, name: &str) {
        self.post("clear-servfail", &json!({ "host": name }));
    }

    #[track_caller]
    fn post(&self, what: &str, body: &Value) {
        let ask = || -> io::Result<_> {
            let mut stream = TcpStream::connect(self.management)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let (body, to) = (body.to_string(), self.management);
            let head = format!("POST /{what} HTTP/1.1\r\nHost: {to}\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes())?;
            read_answer(&mut BufReader::new(stream), false)
        };
        let answer = ask().unwrap_or_else(|e| panic!("{what} {body}: {e}"));
        assert_eq!(answer.status, 200, "{what} {body}: {}", answer.text());
    }
}

/// With the dot at the end, which this server asks for in some places and takes in all.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}
