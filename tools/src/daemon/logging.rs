//! Log lines on standard error: text or JSON, filtered as `RUST_LOG` says.

use super::StartError;
use super::config::{LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;

/// Starts logging. A second call in one process (tests) keeps the first.
pub fn start(config: &LogConfig) -> Result<(), StartError> {
    let text = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty())
        .or_else(|| config.filter.clone())
        .unwrap_or_else(|| "info".into());
    let filter = EnvFilter::try_new(&text).map_err(|error| StartError::LogFilter {
        filter: text,
        why: error.to_string(),
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Fails only where a subscriber is there already.
    let _already = match config.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
    };
    Ok(())
}
