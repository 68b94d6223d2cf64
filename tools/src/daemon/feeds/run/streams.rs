//! The data streams of a session: how they come, in order, and how they end.

use super::{Driver, STREAMS_TIMEOUT, SinkStreams, SourceStreams, Streams};
use feedplex::generation::Role;
use feedplex::session::Event;
use feedplex::streams::{StreamError, StreamThread};
use feedplex::transport::DataStream;
use feedplex::wire::control::StreamsOffer;
use std::time::Duration;
use tokio::sync::mpsc;

impl Driver {
    pub(super) fn open_streams(&mut self, offer: StreamsOffer, connect: bool) {
        let (sender, inbox) = mpsc::channel(1);
        self.streams_inbox = Some(inbox);
        let (feeds, peer) = (self.feeds.clone(), self.peer.clone());
        if connect {
            tokio::spawn(async move {
                let streams = feeds.connect_streams(&peer.name, &offer).await;
                // The session may be over.
                let _gone = sender.send(streams).await;
            });
            return;
        }
        let count = offer.count;
        let arrivals = self
            .feeds
            .registry
            .expect(offer.session, offer.token, peer.proved, count);
        self.expected = Some(offer.session);
        tokio::spawn(async move {
            let streams = tokio::time::timeout(STREAMS_TIMEOUT, collect(arrivals, count)).await;
            let streams = streams.unwrap_or_else(|_| Err("the data streams did not come".into()));
            // The session may be over.
            let _gone = sender.send(streams).await;
        });
    }

    /// All data streams are there: their threads start.
    pub(super) fn start(&mut self, streams: Result<Vec<DataStream>, String>) -> Result<(), String> {
        let streams = streams?;
        let bound = self.bound.as_ref().ok_or("no feed")?;
        let name = bound.entry.lv().lv;
        let on_end = || {
            let (events, failure) = (self.events.clone(), self.stream_failure.clone());
            let end: feedplex::streams::OnEnd = Box::new(move |result| {
                if let Err(error) = result {
                    let text = describe(&error);
                    tracing::debug!("a data stream ended: {text}");
                    // The first failure counts: the other streams end because of it.
                    let _later = failure.set(text);
                }
                // The session may be over.
                let _gone = events.send(Event::Disconnected);
            });
            end
        };
        let failed = |error: std::io::Error| format!("cannot start a data stream: {error}");
        let stream_acks = self.session.stream_acks();
        self.streams = match self.session.role() {
            Some(Role::Source) => Streams::Source(
                SourceStreams::start(
                    &name,
                    streams,
                    &bound.lane,
                    &bound.entry,
                    stream_acks,
                    on_end,
                )
                .map_err(failed)?,
            ),
            Some(Role::Sink) => {
                let sink = SinkStreams::start(
                    &name,
                    streams,
                    &bound.lane,
                    &bound.entry,
                    self.events.clone(),
                    stream_acks,
                    on_end,
                )
                .map_err(failed)?;
                sink.acknowledge(self.events.clone());
                Streams::Sink(sink)
            }
            None => return Err("data streams before there is a role".into()),
        };
        Ok(())
    }
}

/// The error and what lies behind it.
fn describe(error: &StreamError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("data stream: {error}: {source}"),
        None => format!("data stream: {error}"),
    }
}

pub(super) async fn next_streams(
    inbox: &mut Option<mpsc::Receiver<Result<Vec<DataStream>, String>>>,
) -> Result<Vec<DataStream>, String> {
    match inbox {
        Some(receiver) => {
            let streams = receiver.recv().await;
            *inbox = None;
            streams.unwrap_or_else(|| Err("the data streams did not come".into()))
        }
        None => std::future::pending().await,
    }
}

/// Puts arriving streams in the order of their numbers.
async fn collect(
    mut arrivals: mpsc::Receiver<(u16, DataStream)>,
    count: u16,
) -> Result<Vec<DataStream>, String> {
    let mut streams: Vec<Option<DataStream>> = Vec::new();
    streams.resize_with(usize::from(count), || None);
    for _ in 0..count {
        let (number, stream) = arrivals.recv().await.ok_or("the session is over")?;
        match streams.get_mut(usize::from(number)) {
            Some(slot) if slot.is_none() => *slot = Some(stream),
            _ => return Err(format!("data stream {number} came twice")),
        }
    }
    Ok(streams.into_iter().flatten().collect())
}

/// Stops threads and waits for them, off the runtime's threads.
pub async fn end_threads(threads: Vec<StreamThread>) {
    threads.iter().for_each(StreamThread::stop);
    let joined = tokio::task::spawn_blocking(move || {
        for thread in threads {
            if thread.join(Duration::from_secs(20)).is_err() {
                tracing::error!("a data stream's thread does not end");
            }
        }
    });
    if joined.await.is_err() {
        tracing::error!("a data stream's thread panicked");
    }
}
