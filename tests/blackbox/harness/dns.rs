//! What a DNS server says of a name, asked directly and without a cache; and records put there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use hickory_resolver::Resolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Message, ResponseCode, update_message};
use hickory_resolver::proto::rr::rdata::TXT;
use hickory_resolver::proto::rr::{Name, RData, RecordSet, RecordType};

use super::PATIENCE;

/// An answer; empty when the name has no such record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsReply {
    pub code: ResponseCode,
    /// Values as a zone file writes them; the strings of a TXT record joined and without quotes.
    pub values: Vec<String>,
}

/// Asks `server` for the records of that type (`A`, `AAAA`, `CAA`, `CNAME`, `TXT`) of `name`.
#[track_caller]
pub fn dns_query(server: SocketAddr, name: &str, record_type: &str) -> DnsReply {
    let record_type = record_type.parse().expect("a record type");
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = server.port();
    }
    let server = NameServerConfig::new(server.ip(), true, connections);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    builder.options_mut().recursion_desired = false;
    let resolver = builder.build().expect("resolver");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    match runtime.block_on(resolver.lookup(format!("{}.", name.trim_end_matches('.')), record_type)) {
        Ok(found) => {
            let records = found.answers().iter().filter(|record| record.record_type() == record_type);
            DnsReply { code: ResponseCode::NoError, values: records.map(|record| text(&record.data)).collect() }
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => DnsReply { code: none.response_code, values: Vec::new() },
        Err(NetError::Dns(DnsError::ResponseCode(code))) => DnsReply { code, values: Vec::new() },
        Err(other) => panic!("{record_type} of {name}: {other}"),
    }
}

/// Has `server` add a value to the TXT records of `name`, or take it away: an unsigned update (RFC 2136).
#[track_caller]
pub fn dns_update(server: SocketAddr, zone: &str, name: &str, value: &str, adds: bool) {
    let [zone, name] = [zone, name].map(|name| Name::from_ascii(format!("{name}.")).expect("a name"));
    let mut records = RecordSet::with_ttl(name, RecordType::TXT, if adds { 1 } else { 0 });
    records.add_rdata(RData::TXT(TXT::new(vec![value.to_owned()])));
    let update = match adds {
        true => update_message::append(records, zone, false, false),
        false => update_message::delete_by_rdata(records, zone, false),
    };
    let sent = update.to_vec().expect("a message");
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&[&u16::try_from(sent.len()).expect("short").to_be_bytes()[..], &sent].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().unwrap_or_else(|e| panic!("update at {server}: {e}"));
    let answer = Message::from_vec(&answer).expect("a message");
    assert_eq!(answer.response_code, ResponseCode::NoError, "the update was refused");
}

fn text(value: &RData) -> String {
    match value {
        RData::TXT(txt) => String::from_utf8_lossy(&txt.txt_data.concat()).into_owned(),
        other => other.to_string(),
    }
}
