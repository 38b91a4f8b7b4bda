//! A question's answer on the wire.

use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::records::{Cluster, Found, Records};

/// Upstream's, in seconds.
const TTL: u32 = 5;
/// What a client takes over UDP that does not say.
const PLAIN_UDP: usize = 512;
/// Larger answers would be cut into fragments, which get lost.
const LARGEST_UDP: usize = 1232;

/// How many aliases are followed; a circle of them ends here.
const MAX_ALIASES: usize = 8;

/// What becomes of a message.
pub enum Question {
    Answered(Vec<u8>),
    /// A question about an alias of a name that is not of the cluster: its answer lacks that name's records.
    Behind(Box<Behind>),
    /// A question about a name that is not of the cluster.
    Elsewhere,
    /// No question at all; it gets no answer.
    Nonsense,
}

/// An answer that waits for the records of the name behind an alias: the clients' own resolvers do not ask on.
pub struct Behind {
    response: Message,
    request: Message,
    over_tcp: bool,
    target: Name,
    kind: RecordType,
}

impl Behind {
    /// What to ask elsewhere; `None` if it cannot be written.
    pub fn question(&self) -> Option<Vec<u8>> {
        let mut message = Message::new(self.request.metadata.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.target.clone(), self.kind));
        message.to_vec().ok()
    }

    /// The whole answer, with what was heard; without it, if nothing was.
    pub fn finish(mut self, heard: &[u8]) -> Question {
        if let Ok(heard) = Message::from_vec(heard) {
            self.response.answers.extend(heard.answers);
        }
        encode(&self.response, &self.request, self.over_tcp)
    }
}

/// Answers a message about the cluster's names.
pub fn answer(message: &[u8], cluster: &Cluster<'_>, over_tcp: bool) -> Question {
    let Ok(request) = Message::from_vec(message) else { return malformed(message) };
    if request.metadata.message_type != MessageType::Query {
        return Question::Nonsense;
    }
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.metadata.recursion_available = true;
    response.edns = request.edns.as_ref().map(|_| {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST_UDP as u16);
        edns
    });
    let [query] = request.queries.as_slice() else {
        response.metadata.response_code = ResponseCode::FormErr;
        return encode(&response, &request, over_tcp);
    };
    response.add_query(query.clone());
    if request.metadata.op_code != OpCode::Query {
        response.metadata.response_code = ResponseCode::NotImp;
        return encode(&response, &request, over_tcp);
    }
    let name = query.name().to_lowercase().to_ascii();
    match cluster.find(name.trim_end_matches('.')) {
        Found::Elsewhere => return Question::Elsewhere,
        _ if !cluster.snapshot.synced() => response.metadata.response_code = ResponseCode::ServFail,
        Found::Missing => {
            response.metadata.authoritative = true;
            response.metadata.response_code = ResponseCode::NXDomain;
            response.authorities.extend(start_of_authority(cluster.domain));
        }
        Found::Here(records) => {
            response.metadata.authoritative = true;
            let behind = fill(&mut response, query.name(), query.query_type(), &records, cluster);
            if response.answers.is_empty() {
                response.authorities.extend(start_of_authority(cluster.domain));
            }
            if let Some(target) = behind {
                let kind = query.query_type();
                return Question::Behind(Box::new(Behind { response, request, over_tcp, target, kind }));
            }
        }
    }
    encode(&response, &request, over_tcp)
}

/// A message that cannot be read is answered with its identifier and FORMERR, as far as there is one.
fn malformed(message: &[u8]) -> Question {
    let Some([a, b, flags, ..]) = message.get(..12) else { return Question::Nonsense };
    if flags & 0x80 != 0 {
        return Question::Nonsense;
    }
    let id = u16::from_be_bytes([*a, *b]);
    let refused = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
    refused.to_vec().map_or(Question::Nonsense, Question::Answered)
}

fn encode(response: &Message, request: &Message, over_tcp: bool) -> Question {
    let limit = match (over_tcp, &request.edns) {
        (true, _) => usize::from(u16::MAX),
        (false, Some(edns)) => usize::from(edns.max_payload()).clamp(PLAIN_UDP, LARGEST_UDP),
        (false, None) => PLAIN_UDP,
    };
    let Ok(mut bytes) = response.to_vec() else { return Question::Nonsense };
    if bytes.len() > limit {
        match response.truncate().to_vec() {
            Ok(truncated) => bytes = truncated,
            Err(_) => return Question::Nonsense,
        }
    }
    Question::Answered(bytes)
}

/// Puts a name's records into the answer, and those of the names behind its alias; the name behind it that is not of the cluster.
fn fill(
    response: &mut Message,
    owner: &Name,
    wanted: RecordType,
    records: &Records,
    cluster: &Cluster<'_>,
) -> Option<Name> {
    let Some(alias) = records.alias.as_deref().and_then(absolute) else {
        fill_plain(response, owner, wanted, records, cluster.domain);
        return None;
    };
    response.answers.push(Record::from_rdata(owner.clone(), TTL, RData::CNAME(CNAME(alias.clone()))));
    if wanted == RecordType::CNAME || response.answers.len() > MAX_ALIASES {
        return None;
    }
    match cluster.find(alias.to_lowercase().to_ascii().trim_end_matches('.')) {
        Found::Here(behind) => fill(response, &alias, wanted, &behind, cluster),
        Found::Missing => None,
        Found::Elsewhere => Some(alias),
    }
}

fn fill_plain(response: &mut Message, owner: &Name, wanted: RecordType, records: &Records, domain: &str) {
    let is = |kind: RecordType| wanted == kind || wanted == RecordType::ANY;
    let mut add = |data: RData| response.answers.push(Record::from_rdata(owner.clone(), TTL, data));
    for address in &records.addresses {
        match address {
            IpAddr::V4(v4) if is(RecordType::A) => add(RData::A(A(*v4))),
            IpAddr::V6(v6) if is(RecordType::AAAA) => add(RData::AAAA(AAAA(*v6))),
            _ => {}
        }
    }
    if is(RecordType::PTR) {
        records.pointers.iter().filter_map(|name| absolute(name)).for_each(|name| add(RData::PTR(PTR(name))));
    }
    if let (true, Some(text)) = (is(RecordType::TXT), &records.text) {
        add(RData::TXT(TXT::new(vec![text.clone()])));
    }
    let is_apex = owner.to_lowercase().to_ascii().trim_end_matches('.') == domain;
    if is_apex && is(RecordType::SOA) {
        response.answers.extend(start_of_authority(domain));
    }
    if is_apex
        && is(RecordType::NS)
        && let Some(server) = absolute(&format!("ns.dns.{domain}"))
    {
        response.answers.push(Record::from_rdata(owner.clone(), TTL, RData::NS(NS(server))));
    }
    if is(RecordType::SRV) {
        add_services(response, owner, records);
    }
}

fn add_services(response: &mut Message, owner: &Name, records: &Records) {
    // Equal shares, as CoreDNS gives them.
    let weight = 100 / u16::try_from(records.services.len().clamp(1, 100)).unwrap_or(100);
    for service in &records.services {
        let Some(target) = absolute(&service.target) else { continue };
        let data = RData::SRV(SRV::new(0, weight, service.port, target.clone()));
        response.answers.push(Record::from_rdata(owner.clone(), TTL, data));
        for address in &service.addresses {
            let data = match address {
                IpAddr::V4(v4) => RData::A(A(*v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
            };
            let record = Record::from_rdata(target.clone(), TTL, data);
            if !response.additionals.contains(&record) {
                response.additionals.push(record);
            }
        }
    }
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_str(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Tells for how long the absence of a name may be remembered.
fn start_of_authority(domain: &str) -> Option<Record> {
    let zone = absolute(domain)?;
    let (server, contact) = (absolute(&format!("ns.dns.{domain}"))?, absolute(&format!("hostmaster.{domain}"))?);
    let soa = SOA::new(server, contact, 1, 7200, 1800, 86400, TTL);
    Some(Record::from_rdata(zone, TTL, RData::SOA(soa)))
}
