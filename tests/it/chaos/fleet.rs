//! The replicas, which come and go.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;

use crate::support::{App, Replica};

/// Where they are at the moment; the place of one that is down is that of its last life.
pub(super) type Origins = Arc<Mutex<Vec<String>>>;

pub(super) struct Fleet<'a> {
    app: &'a App,
    replicas: Vec<Replica>,
    origins: Origins,
}

impl<'a> Fleet<'a> {
    pub(super) async fn start(app: &'a App, count: usize) -> Self {
        let replicas = join_all((0..count).map(|_| app.start_replica())).await;
        let origins = replicas.iter().map(|replica| replica.easel.origin());
        Self {
            app,
            origins: Arc::new(Mutex::new(origins.collect())),
            replicas,
        }
    }

    pub(super) fn origins(&self) -> Origins {
        Arc::clone(&self.origins)
    }

    /// `kill -9`
    pub(super) fn kill(&mut self, place: usize) {
        self.replicas[place].easel.kill();
    }

    /// Starts it again, however often it takes while the database is away; where nobody knows its past, if it
    /// has moved to another machine.
    pub(super) async fn revive(&mut self, place: usize, has_moved: bool) {
        if has_moved {
            self.replicas[place].forget_past();
        }
        while let Err(output) = self
            .app
            .try_start_replica_again(&mut self.replicas[place])
            .await
        {
            assert!(
                output.stderr.contains("\nerror: "),
                "it says why it does not start: {output:#?}"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let origin = self.replicas[place].easel.origin();
        self.origins.lock().unwrap()[place] = origin;
    }

    pub(super) fn len(&self) -> usize {
        self.replicas.len()
    }

    pub(super) async fn stop(self) {
        join_all(self.replicas.into_iter().map(Replica::stop)).await;
    }
}
