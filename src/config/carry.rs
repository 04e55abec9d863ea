//! Which settings a running process cannot take over from a new configuration, because something that lives as
//! long as the process was made by them.

use secrecy::ExposeSecret as _;

use super::{Config, S3Config};

impl Config {
    /// This configuration as a process can take it over that was `started` with another: what needs a restart
    /// is as it was. Also returns the keys of which that is true and whose values differ.
    #[must_use]
    pub fn carried_into(mut self, started: &Self) -> (Self, Vec<&'static str>) {
        let mut kept = Kept(Vec::new());
        let has_public_url = self.public_url != self.local_url(self.listen);
        let (now, then) = (&mut self, started);
        kept.keep("listen", &mut now.listen, &then.listen);
        // Other files are taken over; whether there are any is what clients and proxies know.
        kept.keep_by("tls", &mut now.tls, &then.tls, Option::is_some);
        if !has_public_url {
            now.public_url = now.local_url(now.listen);
        }
        kept.keep("data_dir", &mut now.data_dir, &then.data_dir);
        kept.keep_by(
            "database.url",
            &mut now.database.url,
            &then.database.url,
            |url| url.as_ref().map(|url| url.expose_secret().to_owned()),
        );
        let (database, then_database) = (&mut now.database, &then.database);
        kept.keep(
            "database.max_connections",
            &mut database.max_connections,
            &then_database.max_connections,
        );
        kept.keep(
            "database.postgres_bin",
            &mut database.postgres_bin,
            &then_database.postgres_bin,
        );
        let (images, then_images) = (&mut now.images, &then.images);
        kept.keep("images.store", &mut images.store, &then_images.store);
        kept.keep("images.links", &mut images.links, &then_images.links);
        kept.keep_by(
            "images.s3",
            &mut images.s3,
            &then_images.s3,
            S3Config::comparable,
        );
        kept.keep(
            "images.max_size",
            &mut images.max_size_bytes,
            &then_images.max_size_bytes,
        );
        kept.keep(
            "images.replay_budget",
            &mut images.replay_budget_bytes,
            &then_images.replay_budget_bytes,
        );
        let (limits, then_limits) = (&mut now.limits, &then.limits);
        kept.keep(
            "limits.max_connections",
            &mut limits.max_connections,
            &then_limits.max_connections,
        );
        kept.keep(
            "limits.max_in_flight",
            &mut limits.max_in_flight,
            &then_limits.max_in_flight,
        );
        kept.keep("log.format", &mut now.log.format, &then.log.format);
        kept.keep("traces", &mut now.traces, &then.traces);
        kept.keep(
            "metrics.listen",
            &mut now.metrics.listen,
            &then.metrics.listen,
        );
        (self, kept.0)
    }
}

/// The keys that are kept although they differ.
struct Kept(Vec<&'static str>);

impl Kept {
    fn keep<T: PartialEq + Clone>(&mut self, key: &'static str, now: &mut T, then: &T) {
        self.keep_by(key, now, then, Clone::clone);
    }

    /// For what cannot be compared as it is.
    fn keep_by<T: Clone, C: PartialEq>(
        &mut self,
        key: &'static str,
        now: &mut T,
        then: &T,
        comparable: impl Fn(&T) -> C,
    ) {
        if comparable(now) != comparable(then) {
            self.0.push(key);
            now.clone_from(then);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn config(text: &str) -> Config {
        Config::from_text(None, text, &Environment::default()).unwrap()
    }

    #[test]
    fn what_needs_a_restart_stays_and_is_named() {
        let started = config("");
        let changed = "
            listen = '0.0.0.0:80'
            default_model = 'dall-e-3'
            data_dir = 'elsewhere'
            [database]
            url = 'postgres://other'
            max_connections = 3
            [images]
            url_ttl = '2h'
            s3.secret_access_key = 'another'
            s3.access_key_id = 'mine'
            max_size = '1 MiB'
            [limits]
            json_body = '2 MiB'
            max_in_flight = 7
            [log]
            format = 'json'
            filter = 'warn'
            [tls]
            cert = 'a'
            key = 'b'
            [metrics]
            listen = '127.0.0.1:9090'";
        let (carried, kept) = config(changed).carried_into(&started);
        assert_eq!(
            kept,
            [
                "listen",
                "tls",
                "data_dir",
                "database.url",
                "database.max_connections",
                "images.store",
                "images.s3",
                "images.max_size",
                "limits.max_in_flight",
                "log.format",
                "metrics.listen"
            ]
        );
        assert_eq!(carried.listen, started.listen);
        assert_eq!(carried.public_url, started.public_url);
        assert_eq!(carried.images.store, started.images.store);
        assert_eq!(carried.default_model.as_deref(), Some("dall-e-3"));
        assert_eq!(carried.images.url_ttl.as_secs(), 7200);
        assert_eq!(carried.limits.json_body_bytes, 2 << 20);
        assert_eq!(carried.log.filter, "warn");

        let keys = |secret: &str| {
            let text =
                format!("images.s3 = {{access_key_id = 'mine', secret_access_key = '{secret}'}}");
            config(&text)
        };
        let (_, kept) = keys("one").carried_into(&keys("one"));
        assert!(kept.is_empty(), "{kept:?}");
        let (_, kept) = keys("two").carried_into(&keys("one"));
        assert_eq!(kept, ["images.s3"]);

        let (_, kept) = config("").carried_into(&started);
        assert!(kept.is_empty(), "{kept:?}");
        let (carried, kept) = config("public_url = 'https://a.example'").carried_into(&started);
        assert!(kept.is_empty(), "{kept:?}");
        assert_eq!(carried.public_url, "https://a.example");
    }
}
