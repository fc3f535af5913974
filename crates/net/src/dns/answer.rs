//! Questions and answers.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::cluster::Cluster;
use super::zones::{Found, Zones};

/// Answers hold as long as Docker's do, in seconds.
const TTL: u32 = 600;
/// Largest answer by datagram that every client takes (RFC 1035).
const PLAIN_UDP: u16 = 512;

/// Who asks, and what is known to him.
pub(crate) enum Asker<'a> {
    /// A sandbox, of the networks it is in.
    Sandbox(&'a Zones, &'a str),
    /// A pod, of the cluster.
    Pod(&'a Cluster),
}

/// What becomes of a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// This answer.
    Reply(Vec<u8>),
    /// Others are asked.
    Forward,
    /// Others are asked for what an alias leads to, and the answer is completed with theirs.
    Follow {
        /// The answer so far.
        reply: Vec<u8>,
        /// What is asked.
        query: Vec<u8>,
        /// Bytes that the asker takes.
        limit: u16,
    },
    /// Nothing: not a query.
    Ignore,
}

/// Answers a query from what is known. By datagram, an answer too large is truncated.
pub(crate) fn answer(asker: &Asker<'_>, query: &[u8], datagram: bool) -> Outcome {
    let Ok(q) = Message::from_vec(query) else {
        return refusal(query, ResponseCode::FormErr).map_or(Outcome::Ignore, Outcome::Reply);
    };
    if q.metadata.message_type != MessageType::Query {
        return Outcome::Ignore;
    }
    let [question] = q.queries.as_slice() else {
        return refusal(query, ResponseCode::FormErr).map_or(Outcome::Ignore, Outcome::Reply);
    };
    if q.metadata.op_code != OpCode::Query || question.query_class() != DNSClass::IN {
        return Outcome::Forward;
    }
    let limit = q
        .edns
        .as_ref()
        .map_or(PLAIN_UDP, |e| e.max_payload().max(PLAIN_UDP));
    let limit = if datagram { limit } else { u16::MAX };
    let reply = match asker {
        Asker::Sandbox(zones, sandbox) => of_networks(zones, sandbox, &q, question).map(|r| (r, None)),
        Asker::Pod(cluster) => of_cluster(cluster, &q, question),
    };
    match reply {
        None => Outcome::Forward,
        Some((reply, None)) => encode(&reply, limit).map_or(Outcome::Ignore, Outcome::Reply),
        Some((reply, Some(target))) => {
            let mut ask = Message::query();
            ask.add_query(Query::query(target, question.query_type()));
            match (reply.to_vec(), ask.to_vec()) {
                (Ok(reply), Ok(query)) => Outcome::Follow { reply, query, limit },
                _ => Outcome::Ignore,
            }
        }
    }
}

/// An answer with an alias, completed with what others say of its target.
pub(crate) fn completed(reply: &[u8], theirs: &[u8], limit: u16) -> Option<Vec<u8>> {
    let mut reply = Message::from_vec(reply).ok()?;
    let theirs = Message::from_vec(theirs).ok()?;
    reply.metadata.response_code = theirs.metadata.response_code;
    reply.add_answers(theirs.answers);
    encode(&reply, limit)
}

/// Answers from the networks of a sandbox; `None` is for others to answer.
fn of_networks(zones: &Zones, sandbox: &str, q: &Message, question: &Query) -> Option<Message> {
    let name = question.name();
    let mut code = ResponseCode::NoError;
    let mut records: Vec<RData> = Vec::new();
    if question.query_type() == RecordType::PTR {
        let known = name
            .parse_arpa_name()
            .ok()
            .and_then(|n| zones.reverse(sandbox, n.addr()))?;
        records.push(RData::PTR(PTR(Name::from_utf8(known + ".").ok()?)));
    } else {
        match zones.find(sandbox, &name.to_utf8()) {
            Found::Addresses(all) => {
                records.extend(all.into_iter().filter_map(|a| match (a, question.query_type()) {
                    (IpAddr::V4(a), RecordType::A | RecordType::ANY) => Some(RData::A(A(a))),
                    (IpAddr::V6(a), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(a))),
                    _ => None,
                }));
            }
            Found::Missing => code = ResponseCode::NXDomain,
            Found::Elsewhere => return None,
        }
    }
    let mut reply = response(q, code);
    let records = records.into_iter();
    reply.add_answers(records.map(|r| Record::from_rdata(name.clone(), TTL, r)));
    Some(reply)
}

/// Answers from the names of the cluster; `None` is for others to answer. An alias whose target is not of the cluster
/// comes with it: most clients do not follow aliases by themselves.
fn of_cluster(cluster: &Cluster, q: &Message, question: &Query) -> Option<(Message, Option<Name>)> {
    let kind = question.query_type();
    let found = cluster.look_up(question.name(), kind)?;
    let mut reply = response(q, found.code);
    reply.metadata.authoritative = true;
    let alias = found.answers.iter().find_map(|r| match &r.data {
        RData::CNAME(to) if kind != RecordType::CNAME => Some(to.0.clone()),
        _ => None,
    });
    reply.add_answers(found.answers);
    reply.add_additionals(found.additionals);
    reply.add_authorities(found.authority);
    let Some(target) = alias else {
        return Some((reply, None));
    };
    let Some(inside) = cluster.look_up(&target, kind) else {
        return Some((reply, Some(target)));
    };
    reply.metadata.response_code = inside.code;
    reply.add_answers(inside.answers);
    Some((reply, None))
}

fn response(q: &Message, code: ResponseCode) -> Message {
    let mut r = Message::response(q.metadata.id, q.metadata.op_code);
    r.metadata.recursion_desired = q.metadata.recursion_desired;
    r.metadata.recursion_available = true;
    r.metadata.response_code = code;
    r.add_queries(q.queries.iter().cloned());
    if let Some(edns) = &q.edns {
        let mut own = hickory_proto::op::Edns::new();
        own.set_max_payload(edns.max_payload().max(PLAIN_UDP));
        r.set_edns(own);
    }
    r
}

fn encode(reply: &Message, limit: u16) -> Option<Vec<u8>> {
    let bytes = reply.to_vec().ok()?;
    if bytes.len() <= usize::from(limit) {
        Some(bytes)
    } else {
        reply.truncate().to_vec().ok()
    }
}

/// An answer that only says why there is none; `None` when the query is too broken to answer.
pub(crate) fn refusal(query: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    match Message::from_vec(query) {
        Ok(q) => response(&q, code).to_vec().ok(),
        Err(_) if query.len() >= 12 && query[2] & 0x80 == 0 => {
            let id = u16::from_be_bytes([query[0], query[1]]);
            Message::error_msg(id, OpCode::Query, code).to_vec().ok()
        }
        Err(_) => None,
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
