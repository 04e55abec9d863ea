//! One Easel for one test: its own database, directory, fake upstream and process. `finish` proves the
//! books, and a test that forgets it fails.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    client::{Answer, Client, Problem},
    cluster::Cluster,
    database::Database,
    fake_openai::{self, FakeOpenAi},
    process::{Easel, Output, run_easel},
    proxy::Proxy,
    secrets::Secrets,
    settings::Settings,
    waiting::until,
};

/// A running Easel with everything around it.
pub(crate) struct App {
    pub(crate) openai: FakeOpenAi,
    pub(crate) database: Database,
    pub(crate) easel: Easel,
    pub(crate) client: Client,
    secrets: Arc<Secrets>,
    directory: TempDir,
    environment: Vec<(String, String)>,
    settings: Settings,
    other_upstreams: bool,
    proxy: Option<Proxy>,
    cluster: Option<Cluster>,
    /// Calls at the fake that a killed process did not live to write down.
    lost_calls: usize,
    /// `finish` was called: whatever it finds is the test's result.
    finished: Finished,
}

/// Settings of an Easel that does not run yet.
pub(crate) struct Builder {
    settings: Settings,
    environment: Vec<(String, String)>,
    openai: FakeOpenAi,
    directory: TempDir,
    other_upstreams: bool,
    has_proxy: bool,
    has_cluster: bool,
}

/// Another process on the same database and the same pictures.
pub(crate) struct Replica {
    pub(crate) easel: Easel,
    pub(crate) client: Client,
    directory: TempDir,
    /// What it keeps for itself alone, the name of its last life among it.
    data_dir: PathBuf,
    secrets: Arc<Secrets>,
}

/// A key as `keys create --json` printed it.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) account: String,
}

impl App {
    /// With the fake `OpenAI` and the sandbox as providers.
    pub(crate) async fn start() -> Self {
        Self::builder().await.start().await
    }

    pub(crate) async fn builder() -> Builder {
        let directory = tempfile::tempdir().unwrap();
        let openai = FakeOpenAi::start().await;
        let mut settings = Settings::for_tests(directory.path());
        settings
            .set("providers.openai.adapter", "openai")
            .set("providers.openai.base_url", openai.base_url())
            .set("providers.openai.api_key", fake_openai::API_KEY)
            .set("providers.sandbox.adapter", "sandbox");
        Builder {
            settings,
            environment: Vec::new(),
            openai,
            directory,
            other_upstreams: false,
            has_proxy: false,
            has_cluster: false,
        }
    }

    /// `easel keys create` with these arguments.
    pub(crate) fn create_key(&self, arguments: &[&str]) -> Key {
        let output = self
            .run(&[&["keys", "create", "--json", "--name", "tests"], arguments].concat())
            .expect_success();
        let answer = output.json();
        let text = |name: &str| {
            answer[name]
                .as_str()
                .unwrap_or_else(|| panic!("no {name} in {answer}"))
                .to_owned()
        };
        let key = Key {
            id: text("id"),
            secret: text("key"),
            account: text("account"),
        };
        self.secrets.add(&key.secret, "a key");
        key
    }

    /// A live key on an account of its own with this many USD.
    pub(crate) fn live_key(&self, credit: &str) -> Key {
        self.create_key(&["--credit", credit])
    }

    /// A test key on an account of its own with this many USD.
    pub(crate) fn test_key(&self, credit: &str) -> Key {
        self.create_key(&["--test", "--credit", credit])
    }

    /// Nobody may find this word in a log.
    pub(crate) fn keep_secret(&self, word: &str, what: &'static str) {
        self.secrets.add(word, what);
    }

    /// What stands before the database.
    pub(crate) fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("built with_proxy")
    }

    /// The database's server, where it is this test's own; to be given back before `finish`.
    pub(crate) fn take_cluster(&mut self) -> Cluster {
        self.cluster.take().expect("built with_cluster")
    }

    pub(crate) fn give_cluster(&mut self, cluster: Cluster) {
        self.cluster = Some(cluster);
    }

    /// What nobody may find in a log, for a client of a test's own.
    pub(crate) fn secrets(&self) -> Arc<Secrets> {
        Arc::clone(&self.secrets)
    }

    /// Fails when any word that must not be logged stands in this text.
    pub(crate) fn assert_nothing_private_in(&self, text: &str) {
        self.secrets.assert_absent_from(text);
    }

    /// Any command, with this Easel's configuration.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let file = self.config_file();
        let arguments = [arguments, &["--config", file.to_str().unwrap()]].concat();
        let environment: Vec<(&str, &str)> = self
            .environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let output = run_easel(self.directory.path(), &arguments, &environment);
        // What a command changes about a key holds everywhere within a second, however slow the machine is, because
        // nobody believes for longer what he has not heard confirmed; and not at once.
        if matches!(arguments[1], "update" | "revoke" | "rotate") {
            #[expect(
                clippy::disallowed_methods,
                reason = "commands block their test as well"
            )]
            std::thread::sleep(Duration::from_secs(1));
        }
        output
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.directory.path().join("easel.toml")
    }

    /// Writes another configuration file; the running process is not told.
    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        self.settings.write(&self.config_file());
    }

    /// Has the running process read its configuration again, and waits until it has applied it.
    pub(crate) async fn reload(&self) {
        let before = self.reloads("applied").await;
        self.easel.signal(Signal::HUP);
        self.wait_for_reload("applied", before).await;
    }

    /// How often a configuration was `applied` or `refused`.
    pub(crate) async fn reloads(&self, outcome: &str) -> u64 {
        let figures = self.figures().await;
        let series = format!("easel_config_reloads_total{{outcome=\"{outcome}\"}} ");
        let line = figures.lines().find_map(|line| line.strip_prefix(&series));
        line.map_or(0, |number| number.parse().unwrap())
    }

    /// Waits until that is more than it was.
    pub(crate) async fn wait_for_reload(&self, outcome: &str, before: u64) {
        let begun = std::time::Instant::now();
        while self.reloads(outcome).await <= before {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "no configuration was {outcome}:\n{}",
                self.easel.stderr()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What `/metrics` says.
    pub(crate) async fn figures(&self) -> String {
        let figures = self.client.get("/metrics", None).await.expect(200);
        String::from_utf8(figures.bytes.to_vec()).unwrap()
    }

    /// How many charges are in the books.
    pub(crate) async fn charges(&self) -> i64 {
        let charges = "select count(*) from ledger_entries where kind = 'charge'";
        self.database.number(charges).await
    }

    /// Waits until something was begun, and all that was has ended: who leaves, or whose answer breaks off, does not
    /// hear of it.
    pub(crate) async fn wait_until_settled(&self) {
        let unsettled = "select case when count(*) = 0 then 1
                 else count(*) filter (where status = 'in_progress') end from generations";
        until("every generation ends", async || {
            self.database.number(unsettled).await == 0
        })
        .await;
    }

    /// The files below the directory where pictures are kept, those among them that wait to be written over.
    pub(crate) fn kept_files(&self) -> Vec<PathBuf> {
        let hours = std::fs::read_dir(self.directory().join("data/images"));
        let hours = hours.unwrap().flatten();
        let files = hours.filter_map(|hour| std::fs::read_dir(hour.path()).ok());
        let files = files.flatten().flatten();
        files.map(|file| file.path()).collect()
    }

    /// Those that are whole pictures.
    pub(crate) fn kept_pictures(&self) -> Vec<PathBuf> {
        let is_picture = |file: &PathBuf| file.extension().is_some_and(|kind| kind != "part");
        self.kept_files().into_iter().filter(is_picture).collect()
    }

    /// Where everything of this Easel lies.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `POST /v1/images/generations`
    pub(crate) async fn generate(&self, key: &Key, body: &Value) -> Answer {
        self.client
            .post_json(GENERATIONS, Some(&key.secret), body)
            .await
    }

    /// The same, refused with this status; nothing was charged and nothing is held.
    pub(crate) async fn refuse(&self, key: &Key, status: u16, body: &Value) -> Problem {
        let before = self.credits(key).await;
        let problem = self.generate(key, body).await.expect(status).problem();
        assert_eq!(
            self.credits(key).await,
            before,
            "a refused request costs nothing: {problem:?}"
        );
        problem
    }

    pub(crate) async fn get(&self, key: &Key, path: &str) -> Answer {
        self.client.get(path, Some(&key.secret)).await
    }

    /// `GET /v1/credits`
    pub(crate) async fn credits(&self, key: &Key) -> Value {
        self.get(key, "/v1/credits").await.expect(200).json()
    }

    /// What is left; fails when anything is held.
    pub(crate) async fn balance(&self, key: &Key) -> Value {
        let credits = self.credits(key).await;
        assert_eq!(credits["held"], json!(0), "nothing is held: {credits}");
        assert_eq!(credits["available"], credits["balance"], "{credits}");
        credits["balance"].clone()
    }

    /// Follows a hosted link, which begins with this Easel's own address unless `public_url` is set.
    pub(crate) async fn open_link(&self, link: &str) -> Answer {
        let path = link
            .strip_prefix(&self.easel.origin())
            .unwrap_or_else(|| panic!("{link} begins with {}", self.easel.origin()));
        self.client.get(path, None).await
    }

    /// Stops the process in good order and starts another on the same database and directory.
    pub(crate) async fn restart(&mut self) {
        self.easel.stop().await;
        self.start_again().await;
    }

    /// Starts another process after the first has ended. It listens elsewhere.
    pub(crate) async fn start_again(&mut self) {
        let file = self.config_file();
        let environment: Vec<(&str, &str)> = self
            .environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        self.easel = Easel::serve(
            self.directory.path(),
            &["--config", file.to_str().unwrap()],
            &environment,
        )
        .await;
        self.client = client(&self.easel, &self.secrets);
    }

    /// The same with another variable.
    pub(crate) async fn start_again_with(&mut self, variable: &str, value: &str) {
        self.environment
            .push((variable.to_owned(), value.to_owned()));
        self.start_again().await;
    }

    /// The same without a variable that the one before had.
    pub(crate) async fn start_again_without(&mut self, variable: &str) {
        self.environment.retain(|(name, _)| name != variable);
        self.start_again().await;
    }

    /// Starts another replica beside this one. Its own directory, the same everything else.
    pub(crate) async fn start_replica(&self) -> Replica {
        self.start_replica_with(&[]).await
    }

    /// The same with these variables.
    pub(crate) async fn start_replica_with(&self, environment: &[(&str, &str)]) -> Replica {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let easel = self
            .try_serve(directory.path(), &data_dir, environment)
            .await;
        let easel = easel.unwrap_or_else(|output| panic!("a replica did not start: {output:#?}"));
        Replica {
            client: client(&easel, &self.secrets),
            easel,
            directory,
            data_dir,
            secrets: Arc::clone(&self.secrets),
        }
    }

    /// Starts one again that has ended; or what it said before it ended by itself.
    pub(crate) async fn try_start_replica_again(
        &self,
        replica: &mut Replica,
    ) -> Result<(), Output> {
        let directory = replica.directory.path();
        replica.easel = self.try_serve(directory, &replica.data_dir, &[]).await?;
        replica.client = replica.client.at(replica.easel.origin());
        Ok(())
    }

    async fn try_serve(
        &self,
        directory: &Path,
        data_dir: &Path,
        environment: &[(&str, &str)],
    ) -> Result<Easel, Output> {
        let file = self.config_file();
        let inherited = self.environment.iter();
        // How much is logged.
        let inherited = inherited.filter(|(name, _)| name == "RUST_LOG");
        let mut variables: Vec<(&str, &str)> = inherited
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        variables.push(("EASEL__DATA_DIR", data_dir.to_str().unwrap()));
        variables.extend(environment);
        let arguments = ["--config", file.to_str().unwrap()];
        Easel::try_serve(directory, &arguments, &variables).await
    }

    /// The process was killed inside a call, which is therefore not in the books.
    pub(crate) fn lost_a_call(&mut self) {
        self.lost_calls += 1;
    }

    /// Ends the process in good order and proves what must hold after every test.
    pub(crate) async fn finish(mut self) {
        self.finished.0 = true;
        self.easel.stop().await;
        self.prove_books().await;
        prove_silence(&self.easel, &self.secrets);
        self.prove_calls().await;
        let Self {
            database,
            easel,
            cluster,
            ..
        } = self;
        drop(easel);
        database.drop().await;
        drop(cluster);
    }

    /// The same, when attempts also went where no fake counts them.
    pub(crate) async fn finish_with_other_upstreams(mut self) {
        self.other_upstreams = true;
        self.finish().await;
    }

    /// Reconcile is clean and no hold is open.
    async fn prove_books(&self) {
        self.run(&["reconcile"]).expect_success();
        let open = self
            .database
            .number("select count(*) from holds where status = 'open'")
            .await;
        assert_eq!(open, 0, "open holds");
        let unfinished = self
            .database
            .number("select count(*) from generations where status = 'in_progress'")
            .await;
        assert_eq!(unfinished, 0, "unfinished generations");
        let held = self
            .database
            .number("select coalesce(sum(held_nano_usd), 0)::bigint from balances")
            .await;
        assert_eq!(held, 0, "money held");
    }

    /// Every call that the fake saw is an attempt in the books, and none was a wrong request.
    async fn prove_calls(&self) {
        let calls = self.openai.calls();
        let refused: Vec<_> = calls
            .iter()
            .filter_map(|call| call.refused.as_ref())
            .collect();
        assert!(
            refused.is_empty(),
            "requests that OpenAI would have refused: {refused:#?}"
        );
        if !self.other_upstreams {
            let attempts = self
                .database
                .number("select count(*) from attempts where provider = 'openai'")
                .await;
            assert_eq!(
                usize::try_from(attempts).unwrap(),
                calls.len() - self.lost_calls,
                "attempts in the books, calls at the fake"
            );
        }
    }
}

impl Replica {
    /// From its next life on it does not know of this one, as on another machine.
    pub(crate) fn forget_past(&mut self) {
        let lives = std::fs::read_dir(self.directory.path()).unwrap().count();
        self.data_dir = self.directory.path().join(format!("data-{lives}"));
    }

    /// Ends it in good order. It kept as silent as the first.
    pub(crate) async fn stop(mut self) {
        self.easel.stop().await;
        self.bury();
    }

    /// It has ended otherwise, and kept as silent.
    pub(crate) fn bury(self) {
        prove_silence(&self.easel, &self.secrets);
        self.directory.close().unwrap();
    }
}

/// Speaks to this process, and holds what it answers to the document of the API.
fn client(easel: &Easel, secrets: &Arc<Secrets>) -> Client {
    Client::new(easel.origin(), Arc::clone(secrets)).held_to_the_document()
}

/// No prompt, picture, key or signed link was logged, at `trace` (I10); nothing panicked.
fn prove_silence(easel: &Easel, secrets: &Secrets) {
    let log = format!("{}\n{}", easel.stdout(), easel.stderr());
    assert!(log.contains("easel::"), "there is a log to search:\n{log}");
    secrets.assert_absent_from(&log);
    assert!(!log.contains("panicked at"), "a panic:\n{log}");
}

const GENERATIONS: &str = "/v1/images/generations";

impl Builder {
    pub(crate) fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings.set(key, value);
        self
    }

    pub(crate) fn remove(mut self, prefix: &str) -> Self {
        self.settings.remove(prefix);
        self
    }

    /// With these models besides those that come with Easel.
    pub(crate) fn models(self, toml: &str) -> Self {
        let models = self.directory.path().join("models");
        std::fs::create_dir(&models).unwrap();
        std::fs::write(models.join("test.toml"), toml).unwrap();
        self.set("models_dir", models.to_str().unwrap())
    }

    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Attempts may go elsewhere than to the fake in this test.
    pub(crate) fn with_other_upstreams(mut self) -> Self {
        self.other_upstreams = true;
        self
    }

    /// With a proxy before the database, for bad weather.
    pub(crate) fn with_proxy(mut self) -> Self {
        self.has_proxy = true;
        self
    }

    /// With a `PostgreSQL` of its own, which may crash.
    pub(crate) fn with_cluster(mut self) -> Self {
        self.has_cluster = true;
        self
    }

    /// The fake, before anything calls it.
    pub(crate) fn openai(&self) -> &FakeOpenAi {
        &self.openai
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) async fn start(mut self) -> App {
        let cluster = if self.has_cluster {
            Some(Cluster::start().await)
        } else {
            None
        };
        let database = match &cluster {
            Some(cluster) => Database::empty_on(cluster.url()).await,
            None => Database::fresh().await,
        };
        let proxy = if self.has_proxy {
            Some(Proxy::before(database.url()).await)
        } else {
            None
        };
        let url = proxy.as_ref().map(|proxy| proxy.url(database.url()));
        let url = url.unwrap_or_else(|| database.url().to_owned());
        self.settings.set("database.url", url);
        let file = self.directory.path().join("easel.toml");
        self.settings.write(&file);
        let environment: Vec<(&str, &str)> = self
            .environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let easel = Easel::serve(
            self.directory.path(),
            &["--config", file.to_str().unwrap()],
            &environment,
        )
        .await;
        let secrets = Arc::new(Secrets::default());
        secrets.add(fake_openai::API_KEY, "the provider's key");
        secrets.add(
            fake_openai::ORGANIZATION,
            "the provider's name of our account",
        );
        App {
            client: client(&easel, &secrets),
            openai: self.openai,
            database,
            easel,
            secrets,
            directory: self.directory,
            environment: self.environment,
            settings: self.settings,
            other_upstreams: self.other_upstreams,
            proxy,
            cluster,
            lost_calls: 0,
            finished: Finished(false),
        }
    }
}

/// An amount of nano-USD as answers write it: the shortest exact decimal, as a JSON number.
pub(crate) fn usd(nano: i64) -> Value {
    let digits = format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000);
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    serde_json::from_str(digits).unwrap()
}

/// A field of its own, so that `finish` can take the rest apart.
struct Finished(bool);

impl Drop for Finished {
    fn drop(&mut self) {
        assert!(
            self.0 || std::thread::panicking(),
            "the test did not call finish(), which proves the books"
        );
    }
}
