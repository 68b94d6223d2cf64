//! From options to a serving daemon, and the way back.

use super::{
    Config, Node, Options, StartError, hooks, logging, metrics, process, server, settings, socket,
};
use crate::paths::Paths;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Time that commands in progress get to end when the daemon is told to stop.
const STOP_VERBS_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the daemon until SIGTERM or SIGINT. SIGHUP reads the configuration again.
pub fn run(options: Options) -> Result<(), StartError> {
    // First of all: nothing else has been opened yet.
    let passed = socket::Passed::take()?;
    let mut config = Config::load(&options, &Paths::of_process())?;
    let mut other_path = None;
    if let Some(passed) = &passed
        && passed.path != config.socket
    {
        other_path = Some(format!(
            "the control socket is {}, as the service manager passes it, and not {}",
            passed.path.display(),
            config.socket.display()
        ));
        config.socket.clone_from(&passed.path);
    }
    logging::start(&config.log)?;
    // Before the first thread, but said later: a daemon that does not start says one line only.
    let mut warnings = process::prepare();
    warnings.extend(other_path);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("volmgrd")
        .build()
        .map_err(StartError::Runtime)?;
    runtime.block_on(serve(config, passed, &options, &warnings))
}

async fn serve(
    config: Config,
    passed: Option<socket::Passed>,
    options: &Options,
    warnings: &[String],
) -> Result<(), StartError> {
    // Signals first: one that comes during the start must not kill a half-started daemon.
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Runtime)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(StartError::Runtime)?;

    let node = Node::open(config)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let ours = passed.is_none();
    let listener = match passed {
        Some(passed) => passed.listener()?,
        None => socket::bind(&node.config.socket)?,
    };
    super::feeds::Feeds::start(&node).await?;
    // Before the first event: the start has things to say, too.
    node.spawn(hooks::run(node.clone()));
    node.clone().start().await?;
    if let Some(address) = node.config.metrics {
        node.spawn(metrics::serve(node.clone(), metrics::bind(address)?));
    }
    let server = tokio::spawn(server::serve(node.clone(), listener));
    tracing::info!(
        node = node.identity.name,
        uuid = %node.identity.uuid,
        socket = %node.config.socket.display(),
        "ready"
    );
    notify(&[sd_notify::NotifyState::Ready]);

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                notify(&[sd_notify::NotifyState::Reloading]);
                settings::reload(&node, options);
                notify(&[sd_notify::NotifyState::Ready]);
            }
        }
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    stop(node, server, ours).await;
    Ok(())
}

/// No new commands; those in progress end; feeds end; volumes are drained and flushed. The control socket is removed where it is
/// `ours`: at one of the service manager's clients wait for the next daemon.
async fn stop(node: Arc<Node>, server: tokio::task::JoinHandle<()>, ours: bool) {
    tracing::info!("stopping");
    node.begin_stop();
    // It ends by the stop signal; a panic in it has been logged by the runtime.
    let _ended = server.await;
    match tokio::time::timeout(STOP_VERBS_TIMEOUT, node.verb_lock()).await {
        Ok(lock) => {
            node.stop_feeds().await;
            node.deactivate_all().await;
            drop(lock);
        }
        Err(_) => {
            tracing::warn!("a command does not end: stopping without it");
            node.stop_feeds().await;
            node.deactivate_all().await;
        }
    }
    tokio::task::block_in_place(|| node.groups.finish_archive());
    if ours && let Err(error) = std::fs::remove_file(&node.config.socket) {
        tracing::debug!(%error, "cannot remove the control socket");
    }
    tracing::info!("stopped");
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}
