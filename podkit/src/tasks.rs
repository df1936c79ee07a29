//! Tasks that live and die together: no Ready pod with a dead part in it.

use std::fmt;
use std::pin::Pin;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a long-lived task of a process is. Boxed, because an `async fn` is compiled anew in every crate that awaits it, with
/// all that it calls: so a server is compiled once, with the crate that it belongs to, and not in each binary and test.
pub type Task<E> = Pin<Box<dyn Future<Output = Result<(), E>> + Send>>;

/// The long-lived tasks of a process. Any that ends while nobody asked the process to stop ends the process.
pub struct Tasks {
    stop: CancellationToken,
    running: JoinSet<(&'static str, Result<(), anyhow::Error>)>,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &self.running.len()).finish()
    }
}

impl Tasks {
    /// No tasks yet; `stop` asks all of them to end.
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, running: JoinSet::new() }
    }

    /// The token that tasks watch.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task. It should run until [`Tasks::stop`] is cancelled.
    pub fn spawn<E>(&mut self, name: &'static str, task: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<anyhow::Error>,
    {
        self.running.spawn(async move { (name, task.await.map_err(Into::into)) });
    }

    /// Waits for all tasks. The first that fails, panics or ends early stops the others and becomes the result.
    pub async fn join(mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        while let Some(ended) = self.running.join_next().await {
            let asked = self.stop.is_cancelled();
            let failure = match ended {
                Ok((name, Err(error))) => Some(error.context(format!("task {name} failed"))),
                Ok((name, Ok(()))) if !asked => Some(anyhow::anyhow!("task {name} ended although nobody asked it to")),
                Ok((_, Ok(()))) => None,
                Err(panic) => Some(anyhow::anyhow!("a task panicked: {panic}")),
            };
            if let Some(error) = failure {
                tracing::error!(error = format!("{error:#}"), "stopping the process");
                self.stop.cancel();
                if outcome.is_ok() {
                    outcome = Err(error);
                }
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    async fn until(stop: CancellationToken) -> Result<(), Infallible> {
        stop.cancelled().await;
        Ok(())
    }

    #[tokio::test]
    async fn a_task_that_ends_early_stops_the_others_and_fails_the_process() {
        let mut tasks = Tasks::new(CancellationToken::new());
        let stop = tasks.stop();
        tasks.spawn("steady", until(stop));
        tasks.spawn("early", async { Ok::<_, Infallible>(()) });
        let error = tasks.join().await.unwrap_err();
        assert!(error.to_string().contains("early"), "{error}");
    }

    #[tokio::test]
    async fn a_panic_fails_the_process() {
        let mut tasks = Tasks::new(CancellationToken::new());
        let stop = tasks.stop();
        tasks.spawn("steady", until(stop));
        tasks.spawn("broken", async { if true { panic!("as the test wants it") } else { Ok::<_, Infallible>(()) } });
        assert!(tasks.join().await.is_err());
    }

    #[tokio::test]
    async fn asked_to_stop_all_end_well() {
        let mut tasks = Tasks::new(CancellationToken::new());
        let stop = tasks.stop();
        tasks.spawn("steady", until(stop.clone()));
        stop.cancel();
        tasks.join().await.unwrap();
    }
}
