//! Counts per source, role, principal and target, shared by all shards.
//!
//! They are taken once per connection, never per request, so a mutex around a
//! small map is cheap enough and keeps the counts exact: a limit of 100 means
//! 100 over all shards.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A poisoned count is still a count: every change below is one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many of something each key has, up to a maximum.
#[derive(Debug)]
pub struct Counts<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Clone for Counts<K> {
    fn clone(&self) -> Self {
        Counts(self.0.clone())
    }
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Counts(Arc::default())
    }
}

/// One taken place; giving it back is dropping it.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    counts: Counts<K>,
    key: Option<K>,
}

impl<K: Eq + Hash + Clone> Counts<K> {
    /// Takes a place for `key`, unless it has `max` already.
    pub fn take(&self, key: K, max: usize) -> Option<Place<K>> {
        let mut map = lock(&self.0);
        let count = map.entry(key.clone()).or_insert(0);
        if *count >= max {
            if *count == 0 {
                map.remove(&key);
            }
            return None;
        }
        *count += 1;
        Some(Place {
            counts: self.clone(),
            key: Some(key),
        })
    }

    /// How many `key` has.
    pub fn of(&self, key: &K) -> usize {
        lock(&self.0).get(key).copied().unwrap_or(0)
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut map = lock(&self.counts.0);
        if let Some(count) = map.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                map.remove(&key);
            }
        }
    }
}

/// Connections of agents: in all, per source, and per source before login.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    total: Counts<()>,
    sources: Counts<IpAddr>,
    logins: Counts<IpAddr>,
}

/// The places that one agent connection takes.
#[derive(Debug)]
pub struct Admitted {
    _total: Place<()>,
    _source: Place<IpAddr>,
    login: Option<Place<IpAddr>>,
}

impl Admission {
    /// Takes the places for a connection from `source`, or says which limit
    /// is reached.
    pub fn admit(
        &self,
        source: IpAddr,
        total_max: usize,
        source_max: usize,
        logins_max: usize,
    ) -> Result<Admitted, &'static str> {
        let total = self.total.take((), total_max).ok_or("connections_max")?;
        let source_place = self
            .sources
            .take(source, source_max)
            .ok_or("connections_per_source_max")?;
        let login = self
            .logins
            .take(source, logins_max)
            .ok_or("logins_per_source_max")?;
        Ok(Admitted {
            _total: total,
            _source: source_place,
            login: Some(login),
        })
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.total.of(&())
    }
}

impl Admitted {
    /// The login is over; its place is given back.
    pub fn logged_in(&mut self) {
        self.login = None;
    }
}

/// Places at a target with a bounded queue of those who wait for one.
#[derive(Clone, Default)]
pub struct TargetPlaces(Arc<Mutex<TargetQueue>>);

#[derive(Default)]
struct TargetQueue {
    taken: usize,
    max: usize,
    waiting: VecDeque<Waiter>,
}

type Waiter = Box<dyn FnOnce(TargetPlace) + Send>;

/// One place at a target; dropping it gives it to the first who waits.
pub struct TargetPlace(Option<TargetPlaces>);

/// The answer to asking for a place at a target.
pub enum Asked {
    /// Here it is.
    Place(TargetPlace),
    /// It will be handed to the waiter.
    Queued,
    /// The queue is full too.
    Full,
}

impl TargetPlaces {
    /// Asks for a place; with none free, `waiter` joins the queue if it has room.
    pub fn ask(
        &self,
        max: usize,
        queue_max: usize,
        waiter: impl FnOnce(TargetPlace) + Send + 'static,
    ) -> Asked {
        let mut q = lock(&self.0);
        q.max = max;
        if q.taken < q.max {
            q.taken += 1;
            return Asked::Place(TargetPlace(Some(self.clone())));
        }
        if q.waiting.len() >= queue_max {
            return Asked::Full;
        }
        q.waiting.push_back(Box::new(waiter));
        Asked::Queued
    }

    /// Places taken now.
    #[cfg(test)]
    fn taken(&self) -> usize {
        lock(&self.0).taken
    }
}

impl Drop for TargetPlace {
    fn drop(&mut self) {
        let Some(places) = self.0.take() else { return };
        let mut q = lock(&places.0);
        // After a reload to a lower maximum the place just goes.
        let next = if q.taken <= q.max {
            q.waiting.pop_front()
        } else {
            None
        };
        match next {
            Some(waiter) => {
                drop(q);
                // A waiter that has gone drops the place at once, which comes
                // back here and goes to the next.
                waiter(TargetPlace(Some(places)));
            }
            None => q.taken -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_and_come_back() {
        let counts = Counts::default();
        let a = counts.take("x", 2).expect("first");
        let _b = counts.take("x", 2).expect("second");
        assert!(counts.take("x", 2).is_none());
        drop(a);
        assert!(counts.take("x", 2).is_some());
    }

    #[test]
    fn a_refused_admission_leaves_no_count_behind() {
        let admission = Admission::default();
        let ip = IpAddr::from([127, 0, 0, 1]);
        let first = admission.admit(ip, 10, 10, 1).expect("admitted");
        assert_eq!(
            admission
                .admit(ip, 10, 10, 1)
                .expect_err("one login at a time"),
            "logins_per_source_max"
        );
        assert_eq!(admission.connections(), 1);
        drop(first);
        assert_eq!(admission.connections(), 0);
    }

    #[test]
    fn the_first_who_waits_gets_the_place_and_the_queue_is_bounded() {
        let places = TargetPlaces::default();
        let Asked::Place(first) = places.ask(1, 1, |_| ()) else {
            panic!("free")
        };
        let (tx, rx) = std::sync::mpsc::channel();
        assert!(matches!(
            places.ask(1, 1, move |p| tx.send(p).expect("listened to")),
            Asked::Queued
        ));
        assert!(matches!(places.ask(1, 1, |_| ()), Asked::Full));
        drop(first);
        let second = rx.try_recv().expect("handed over");
        assert_eq!(places.taken(), 1);
        drop(second);
        assert_eq!(places.taken(), 0);
    }

    #[test]
    fn a_waiter_that_has_gone_does_not_keep_the_place() {
        let places = TargetPlaces::default();
        let Asked::Place(first) = places.ask(1, 2, |_| ()) else {
            panic!("free")
        };
        assert!(matches!(places.ask(1, 2, drop), Asked::Queued));
        let (tx, rx) = std::sync::mpsc::channel();
        assert!(matches!(
            places.ask(1, 2, move |p| tx.send(p).expect("listened to")),
            Asked::Queued
        ));
        drop(first);
        assert!(rx.try_recv().is_ok());
    }
}
