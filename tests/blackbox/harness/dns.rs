//! What a DNS server says of a name, asked directly and without a cache.

use std::net::SocketAddr;

use hickory_resolver::Resolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RData;

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

fn text(value: &RData) -> String {
    match value {
        RData::TXT(txt) => String::from_utf8_lossy(&txt.txt_data.concat()).into_owned(),
        other => other.to_string(),
    }
}
