//! `/debug/api_priority_and_fairness/…`: the levels, queues and requests of this moment, as upstream prints them.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Response, StatusCode};
use tokio::time::Instant;

use super::FlowControl;
use super::level::{Level, Request};
use super::work::Work;
use crate::chain::request_info::RequestInfo;
use crate::http::{Body, respond};
use crate::pages::Page;
use crate::registry::options::Query;

const PREFIX: &str = "/debug/api_priority_and_fairness/";

/// The three pages.
pub struct Dumps(pub Arc<FlowControl>);

#[async_trait::async_trait]
impl Page for Dumps {
    async fn serve(&self, info: &RequestInfo, parts: &Parts) -> Option<Response<Body>> {
        let page = info.path.strip_prefix(PREFIX)?;
        if parts.method != Method::GET {
            return None;
        }
        let configuration = self.0.configuration();
        let levels = || configuration.levels.values();
        let table = match page {
            "dump_priority_levels" => priority_levels(levels()),
            "dump_queues" => queues(levels()),
            "dump_requests" => {
                let details =
                    !Query::parse(parts.uri.query().unwrap_or_default()).get("includeRequestDetails").is_empty();
                requests(levels(), details)
            }
            _ => return None,
        };
        Some(respond::text(StatusCode::OK, table.to_string()))
    }
}

/// Rows whose columns are aligned.
struct Table(Vec<Vec<String>>);

impl Table {
    fn new(headers: &[&str]) -> Self {
        Table(vec![headers.iter().map(|h| h.to_string()).collect()])
    }
}

/// A column is at least so wide.
const WIDTH: usize = 8;

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.0.first().map_or(0, Vec::len);
        // Every cell but the last of a row ends with a comma.
        let width =
            |column: usize| self.0.iter().map(|row| row[column].chars().count() + 2).max().unwrap_or(0).max(WIDTH);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.0 {
            let (last, cells) = row.split_last().map_or(("", &row[..]), |(last, cells)| (last.as_str(), cells));
            for (cell, &width) in cells.iter().zip(&widths) {
                write!(f, "{:<width$}", format!("{cell},"))?;
            }
            writeln!(f, "{last}")?;
        }
        Ok(())
    }
}

fn priority_levels<'a>(levels: impl Iterator<Item = &'a Arc<Level>>) -> Table {
    let mut table = Table::new(&[
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ]);
    for level in levels {
        let set = level.set.lock();
        let active = set.queues().iter().filter(|q| !q.waiting.is_empty()).count();
        let counted = set.counted;
        table.0.push(vec![
            level.name.to_string(),
            active.to_string(),
            set.is_idle().to_string(),
            level.quiescing.load(Ordering::Relaxed).to_string(),
            set.waiting().to_string(),
            set.executing().to_string(),
            counted.dispatched.to_string(),
            counted.rejected.to_string(),
            counted.timed_out.to_string(),
            counted.cancelled.to_string(),
        ]);
    }
    table
}

fn queues<'a>(levels: impl Iterator<Item = &'a Arc<Level>>) -> Table {
    let mut table = Table::new(&[
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ]);
    for level in levels {
        let set = level.set.lock();
        for (index, queue) in set.queues().iter().enumerate() {
            table.0.push(vec![
                level.name.to_string(),
                index.to_string(),
                queue.waiting.len().to_string(),
                queue.executing.to_string(),
                queue.seats_in_use.to_string(),
                seat_seconds(queue.next_dispatch_r),
                queue.waiting_initial_seats().to_string(),
                queue.waiting_seats.to_string(),
                seat_seconds(queue.waiting_work()),
            ]);
        }
    }
    table
}

fn seat_seconds(amount: f64) -> String {
    format!("{amount:.8}ss")
}

/// One line of the requests' page.
struct Line<'a> {
    request: &'a Request,
    /// The queue, or -1.
    queue: Option<usize>,
    /// The place in the queue; none for a request being served.
    place: Option<usize>,
    arrived: Instant,
    started: Option<Instant>,
    work: Work,
}

fn requests<'a>(levels: impl Iterator<Item = &'a Arc<Level>>, details: bool) -> Table {
    let mut headers = vec![
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
        "FinalSeats",
        "AdditionalLatency",
        "StartTime",
    ];
    if details {
        headers.extend(["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"]);
    }
    let mut table = Table::new(&headers);
    let clock = Clock::now();
    for level in levels {
        let set = level.set.lock();
        for (index, queue) in set.queues().iter().enumerate() {
            for (place, waiting) in queue.waiting.iter().enumerate() {
                let line = Line {
                    request: &waiting.request,
                    queue: Some(index),
                    place: Some(place),
                    arrived: waiting.arrived,
                    started: None,
                    work: waiting.work,
                };
                table.0.push(cells(level, &line, &clock, details));
            }
        }
        for running in set.running() {
            let line = Line {
                request: &running.request,
                queue: running.queue,
                place: None,
                arrived: running.arrived,
                started: Some(running.started),
                work: running.work,
            };
            table.0.push(cells(level, &line, &clock, details));
        }
    }
    table
}

fn cells(level: &Level, line: &Line<'_>, clock: &Clock, details: bool) -> Vec<String> {
    let Request { schema, info, user } = line.request;
    let index = |at: Option<usize>| at.map_or_else(|| "-1".to_string(), |at| at.to_string());
    let mut cells = vec![
        level.name.to_string(),
        schema.name.to_string(),
        index(line.queue),
        index(line.place),
        schema.distinguisher(info, user).to_string(),
        clock.text(Some(line.arrived)),
        line.work.initial.to_string(),
        line.work.last.to_string(),
        go_duration(line.work.linger),
        clock.text(line.started),
    ];
    if details {
        let version = match info.group.as_str() {
            "" => info.version.clone(),
            group => format!("{group}/{}", info.version),
        };
        cells.extend([
            user.name.clone(),
            info.verb.clone(),
            info.path.clone(),
            info.namespace.clone(),
            info.name.clone(),
            version,
            info.resource.clone(),
            info.subresource.clone(),
        ]);
    }
    cells
}

fn go_duration(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "0s".into(),
        millis => format!("{millis}ms"),
    }
}

/// Ties the two clocks together: moments are kept as instants and shown as times.
struct Clock {
    instant: Instant,
    time: jiff::Timestamp,
}

impl Clock {
    fn now() -> Self {
        Clock { instant: Instant::now(), time: jiff::Timestamp::now() }
    }

    fn text(&self, moment: Option<Instant>) -> String {
        // Go prints its zero time for what has not happened.
        let Some(moment) = moment else { return "0001-01-01T00:00:00Z".into() };
        let ago = self.instant.saturating_duration_since(moment);
        let mut text = String::new();
        let time = self.time.checked_sub(ago).unwrap_or(self.time);
        let _ = write!(text, "{time}");
        text
    }
}
