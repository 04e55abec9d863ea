//! What the books say after the storm, beside what the clients have and what the provider has seen.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::{Duration, Instant},
};

use sqlx::Row as _;

use super::client::{End, Story};
use crate::support::{App, fake_openai::Call, usd};

/// The dead are found silent within 30 s; the rest is for a machine that does something else.
const QUIET_WITHIN: Duration = Duration::from_mins(1);

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Found {
    requests: usize,
    tries: usize,
    pub(super) with_pictures: usize,
    unanswered: usize,
    refused: BTreeMap<String, usize>,
    charged: usize,
    abandoned: usize,
    calls: usize,
    attempts: usize,
}

/// A generation in the books.
struct Row {
    generation: String,
    status: String,
    hold: String,
    /// In nano-USD.
    charges: Vec<i64>,
    images: i64,
    /// Those that reached the provider.
    attempts: usize,
}

/// Until every generation is in a final state and no hold is open.
pub(super) async fn wait_until_quiet(app: &App) {
    let unfinished = "select (select count(*) from generations where status = 'in_progress')
        + (select count(*) from holds where status = 'open')";
    let begun = Instant::now();
    loop {
        let left = app.database.number(unfinished).await;
        if left == 0 {
            return;
        }
        assert!(begun.elapsed() < QUIET_WITHIN, "{left} are not over yet");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Each client's request was charged at most once, and once where the client has its pictures, at the price that
/// it was told. Every call at the provider is an attempt in the books, but for those of generations whose process
/// did not live to write them down, and that nobody was charged for.
pub(super) async fn audit(app: &App, stories: &[Story], calls: &[Call]) -> Found {
    let mut books = read(app).await;
    let mut seen: HashMap<String, usize> = HashMap::new();
    for call in calls {
        let prompt = call.body["prompt"].as_str().unwrap();
        let (_, name) = prompt.rsplit_once(' ').unwrap();
        *seen.entry(name.to_owned()).or_default() += 1;
    }
    let mut found = Found {
        requests: stories.len(),
        calls: calls.len(),
        ..Found::default()
    };
    for story in stories {
        let rows = books.remove(&story.name).unwrap_or_default();
        let calls = seen.remove(&story.name).unwrap_or_default();
        found.tries += usize::from(story.tries);
        check(story, &rows, calls, &mut found);
    }
    assert!(books.is_empty(), "nobody asked for {:?}", books.keys());
    assert!(seen.is_empty(), "nobody asked for {seen:?}");
    found
}

fn check(story: &Story, rows: &[Row], calls: usize, found: &mut Found) {
    let mut charged = Vec::new();
    let (mut attempts, mut abandoned) = (0, 0);
    for row in rows {
        let is_final = match (row.status.as_str(), row.hold.as_str()) {
            ("completed", "captured") => row.charges.len() == 1 && row.images == 1,
            ("failed", "released") => row.charges.is_empty() && row.images == 0,
            ("abandoned", "expired") => {
                abandoned += 1;
                row.charges.is_empty() && row.images == 0 && row.attempts == 0
            }
            _ => false,
        };
        assert!(
            is_final,
            "{} {} {}: {story:?}",
            row.generation, row.status, row.hold
        );
        charged.extend(row.charges.iter().map(|charge| (&row.generation, *charge)));
        attempts += row.attempts;
    }
    assert!(
        charged.len() <= 1,
        "charged {} times: {story:?}",
        charged.len()
    );
    match &story.end {
        End::Pictures {
            generation, cost, ..
        } => {
            found.with_pictures += 1;
            let (charged_for, charge) = charged.first().expect("what was delivered is charged");
            assert_eq!(*charged_for, generation, "{story:?}");
            assert_eq!(*cost, usd(*charge), "{story:?}");
        }
        End::Refused(code) => *found.refused.entry(code.clone()).or_default() += 1,
        End::NoAnswer => found.unanswered += 1,
    }
    // A call that the provider calls passing is made twice.
    let lost = calls.checked_sub(attempts);
    let lost = lost.unwrap_or_else(|| panic!("{attempts} attempts, {calls} calls: {story:?}"));
    assert!(
        lost <= 2 * abandoned,
        "{lost} calls of {story:?} are not in the books, and {abandoned} generations abandoned"
    );
    found.charged += charged.len();
    found.attempts += attempts;
    found.abandoned += abandoned;
}

/// All generations, by the request that they are of.
async fn read(app: &App) -> HashMap<String, Vec<Row>> {
    let rows = sqlx::query(
        "select g.end_user, g.id, g.status, h.status,
             array(select -e.amount_nano_usd from ledger_entries e
                 where e.generation_id = g.id and e.kind = 'charge'),
             (select count(*) from images i where i.generation_id = g.id),
             (select count(*) from attempts a where a.generation_id = g.id
                 and coalesce(a.error, '') not in ('transport', 'timeout'))
         from generations g join holds h on h.generation_id = g.id order by g.id",
    )
    .fetch_all(app.database.pool())
    .await
    .unwrap();
    let mut books: HashMap<String, Vec<Row>> = HashMap::new();
    for row in rows {
        books.entry(row.get(0)).or_default().push(Row {
            generation: row.get(1),
            status: row.get(2),
            hold: row.get(3),
            charges: row.get(4),
            images: row.get(5),
            attempts: usize::try_from(row.get::<i64, _>(6)).unwrap(),
        });
    }
    books
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused: Vec<String> = self
            .refused
            .iter()
            .map(|(code, count)| format!("{count} {code}"))
            .collect();
        write!(
            formatter,
            "{} requests in {} tries: {} with pictures, {} without an answer, refused {}; {} charges, {} abandoned \
             generations, {} calls and {} attempts",
            self.requests,
            self.tries,
            self.with_pictures,
            self.unanswered,
            refused.join(", "),
            self.charged,
            self.abandoned,
            self.calls,
            self.attempts,
        )
    }
}
