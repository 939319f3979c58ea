//! Keys of issuers that are named by URL: fetched by the control thread, once
//! for all who wait, and not more often than an attacker with made-up key ids
//! deserves.

use crate::config::checked::JwksSource;
use crate::serve::shard::Shard;
use crate::serve::shared::Shared;
use control::FetchLimits;
use identity::KeySet;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Least time between two fetches for one issuer.
const REFRESH_EVERY: Duration = Duration::from_secs(30);

static LAST: Mutex<Option<HashMap<String, Instant>>> = Mutex::new(None);

fn may_fetch(issuer: &str) -> bool {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let map = last.get_or_insert_with(HashMap::new);
    let now = Instant::now();
    if map
        .get(issuer)
        .is_some_and(|t| now.duration_since(*t) < REFRESH_EVERY)
    {
        return false;
    }
    map.insert(issuer.to_string(), now);
    true
}

/// Fetches the keys of `issuer` and puts them in force; `done` hears whether
/// it worked.
pub fn fetch(shared: &Arc<Shared>, issuer: &str, done: impl FnOnce(bool) + Send + 'static) {
    let live = shared.live.load();
    let url = live
        .config
        .issuers
        .iter()
        .find(|i| i.issuer == issuer)
        .and_then(|i| match &i.jwks {
            JwksSource::Url(url) => Some(url.clone()),
            JwksSource::File(_) => None,
        });
    let Some(url) = url else { return done(false) };
    let (shared_again, issuer) = (shared.clone(), issuer.to_string());
    shared.control.fetch_url(
        &url,
        FetchLimits::default(),
        Box::new(move |answer| {
            let keys = answer
                .map_err(|e| e.to_string())
                .and_then(|text| KeySet::parse(&text).map_err(|e| e.to_string()));
            let next = keys.and_then(|k| {
                shared_again
                    .verifier
                    .load()
                    .with_keys(&issuer, k)
                    .map_err(|e| e.to_string())
            });
            match next {
                Ok(verifier) => {
                    shared_again.verifier.store(Arc::new(verifier));
                    done(true);
                }
                Err(error) => {
                    tracing::warn!(%issuer, %error, "keys of an issuer cannot be had");
                    done(false);
                }
            }
        }),
    );
}

/// Refreshes from a shard; true if the keys are fresh now.
pub async fn refresh(shard: &Rc<Shard>, issuer: &str) -> bool {
    if !may_fetch(issuer) {
        return false;
    }
    let (done, wait) = engine::reply::<bool>();
    fetch(&shard.shared, issuer, move |ok| done.send(ok));
    wait.await.unwrap_or(false)
}
