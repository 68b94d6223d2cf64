//! Log lines on standard error: text or JSON, filtered as `RUST_LOG` says. The filter can be changed while
//! the daemon runs; with it, spans of requests (`volmgr::request=trace`) and of disk operations
//! (`volmgr::disk=trace`), of which each is one line when it ends, with the time it took.

use super::StartError;
use super::config::{LogConfig, LogFormat};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Where the filter can be changed, and what it is.
struct Filter {
    handle: reload::Handle<EnvFilter, Registry>,
    text: String,
}

static FILTER: Mutex<Option<Filter>> = Mutex::new(None);

fn filter_now() -> MutexGuard<'static, Option<Filter>> {
    FILTER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the configuration and the environment say.
pub fn configured(config: &LogConfig) -> String {
    std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty())
        .or_else(|| config.filter.clone())
        .unwrap_or_else(|| "info".into())
}

fn parse(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(text).map_err(|error| error.to_string())
}

/// Starts logging. A second call in one process (tests) keeps the first.
pub fn start(config: &LogConfig) -> Result<(), StartError> {
    let text = configured(config);
    let filter = parse(&text).map_err(|why| StartError::LogFilter {
        filter: text.clone(),
        why,
    })?;
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(std::io::stderr);
    // Fails only where a subscriber is there already.
    let started = match config.format {
        LogFormat::Json => registry.with(lines.json()).try_init(),
        LogFormat::Text => registry
            .with(lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())))
            .try_init(),
    };
    if started.is_ok() {
        *filter_now() = Some(Filter { handle, text });
    }
    Ok(())
}

/// Changes the filter, for all that is logged from now on.
pub fn set_filter(text: &str) -> Result<(), String> {
    let wanted = parse(text)?;
    match &mut *filter_now() {
        None => Err("this process does not log".into()),
        Some(filter) => {
            filter
                .handle
                .reload(wanted)
                .map_err(|error| error.to_string())?;
            text.clone_into(&mut filter.text);
            Ok(())
        }
    }
}

/// The filter as it is now.
pub fn filter() -> String {
    filter_now()
        .as_ref()
        .map_or_else(String::new, |filter| filter.text.clone())
}
