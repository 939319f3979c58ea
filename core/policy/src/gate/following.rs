//! What texts do to the session: names made and used, settings, state.

use super::names::{Full, Prepared};
use super::reading::Reading;
use super::{Bind, Binds, Change, MEANING, PreparedText, SqlGate};
use crate::compile::Role;
use crate::decision::Decision;
use crate::evaluate::{Circumstances, decide, moves_path};
use crate::spec::Action;
use crate::sql::{NAME_BYTES_MAX, NameUse, SqlFacts, StatementFacts};
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;

/// Deepest chain of statements that execute one another.
const EXECUTE_DEPTH_MAX: usize = 4;
/// Most uses of names in one text: each asks for every text behind the name.
const NAME_USES_MAX: usize = 256;
/// Most values of one setting kept for approval digests.
const VALUES_MAX: usize = 32;

impl SqlGate {
    /// What the names that a text uses add to its decision.
    pub(super) fn names_decision(
        &mut self,
        role: &Role,
        facts: &SqlFacts,
        depth: usize,
    ) -> Option<Decision> {
        if facts.statements.iter().all(|s| s.names.is_empty()) {
            return None;
        }
        let uses: usize = facts.statements.iter().map(|s| s.names.len()).sum();
        if uses > NAME_USES_MAX {
            return Some(self.full(Full::Uses));
        }
        let mut outcome: Option<Decision> = None;
        let mut add = |decision: Decision| {
            outcome = Some(match outcome.take() {
                None => decision,
                Some(before) => before.stricter(decision),
            });
        };
        // Names that the same text makes before it uses them.
        let mut own_statements = HashSet::new();
        let mut own_portals = HashSet::new();
        for used in facts.statements.iter().flat_map(|s| &s.names) {
            match used {
                NameUse::Prepare { name, .. } => {
                    own_statements.insert(name.as_str());
                }
                NameUse::Declare { name, .. } => {
                    own_portals.insert(name.as_str());
                }
                NameUse::Execute { name, args } => {
                    if let Some(decision) =
                        self.execute_decision(role, name, args.as_deref(), depth)
                    {
                        add(decision);
                    } else if !own_statements.contains(name.as_str()) {
                        add(self.unknown(role, "prepared statement"));
                    }
                }
                NameUse::Fetch { name } => {
                    let slots = self.portals.look(name.as_bytes());
                    if slots.is_empty() && !own_portals.contains(name.as_str()) {
                        add(self.unknown(role, "portal"));
                        continue;
                    }
                    let circumstances = Circumstances {
                        session: &self.session,
                        binds: None,
                        search_path_changed: self.search_path_changed,
                    };
                    for slot in slots {
                        self.behind
                            .push((name.clone(), prepared_text(&slot.prepared)));
                        let decision =
                            decide(role, &slot.prepared.facts, circumstances, |_, _, _| {});
                        // A hold was taken when the portal was made.
                        if decision.action == Action::Deny {
                            add(decision);
                        }
                    }
                }
                NameUse::Deallocate { .. } | NameUse::Close { .. } => {}
            }
            let long = match used {
                NameUse::Prepare { name, .. }
                | NameUse::Execute { name, .. }
                | NameUse::Declare { name, .. }
                | NameUse::Fetch { name } => name,
                NameUse::Deallocate { name: Some(name) } | NameUse::Close { name: Some(name) } => {
                    name
                }
                _ => continue,
            };
            // A name this long may have been cut, and not as we cut it.
            if long.len() > NAME_BYTES_MAX || (long.len() > NAME_BYTES_MAX - 4 && !long.is_ascii())
            {
                add(self.too_long());
            }
        }
        outcome
    }

    /// The strictest decision over what EXECUTE may run; `None` = unknown.
    pub(super) fn execute_decision(
        &mut self,
        role: &Role,
        name: &str,
        args: Option<&[Option<String>]>,
        depth: usize,
    ) -> Option<Decision> {
        let values: Option<Vec<Bind<'_>>> = args.map(|args| {
            args.iter()
                .map(|a| Bind {
                    binary: false,
                    value: a.as_ref().map(String::as_bytes),
                })
                .collect()
        });
        let circumstances = Circumstances {
            session: &self.session,
            binds: Some(values.as_deref().map_or(Binds::Unread, Binds::Values)),
            search_path_changed: self.search_path_changed,
        };
        let now = self.era();
        let mut outcome: Option<Decision> = None;
        let mut nested = Vec::new();
        for slot in self.statements.of(name.as_bytes()) {
            let one = match &slot.decided {
                Some((era, decision)) if *era == now && !role.reads_binds() => decision.clone(),
                _ => decide(role, &slot.prepared.facts, circumstances, |_, _, _| {}),
            };
            slot.decided = Some((now, one.clone())).filter(|_| !role.reads_binds());
            outcome = Some(match outcome {
                None => one,
                Some(before) => before.stricter(one),
            });
            nested.push(slot.prepared.clone());
        }
        self.behind
            .extend(nested.iter().map(|p| (name.to_owned(), prepared_text(p))));
        for prepared in nested {
            if prepared
                .facts
                .statements
                .iter()
                .any(|s| !s.names.is_empty())
            {
                let more = if depth >= EXECUTE_DEPTH_MAX {
                    Some(self.unknown(role, "chain of statements that execute one another"))
                } else {
                    self.names_decision(role, &prepared.facts, depth + 1)
                };
                outcome = match (outcome, more) {
                    (Some(a), Some(b)) => Some(a.stricter(b)),
                    (a, b) => a.or(b),
                };
            }
        }
        outcome
    }

    /// What a text does to the session once it runs.
    pub(super) fn effects(
        &mut self,
        role: &Role,
        facts: &SqlFacts,
        text: &Bytes,
    ) -> Result<Vec<Change>, Full> {
        let mut changes = Vec::new();
        let result = self.make_effects(role, facts, text, &mut changes);
        if result.is_err() {
            // Nothing of it is sent: what was made room for is taken back.
            self.undo(changes);
            return result.map(|()| Vec::new());
        }
        Ok(changes)
    }

    /// Takes back definitions of a unit that is not sent after all.
    pub(super) fn undo(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Statement(name, p) => self.statements.failed(&name, &[p], false),
                Change::Portal(name, p) => self.portals.failed(&name, &p, false),
                Change::CloseStatement(_) | Change::ClosePortal(_) => {}
            }
        }
    }

    fn make_effects(
        &mut self,
        role: &Role,
        facts: &SqlFacts,
        text: &Bytes,
        changes: &mut Vec<Change>,
    ) -> Result<(), Full> {
        // One copy for all, made when the first name needs it: the text must
        // not hold on to a shard's read buffer.
        let mut copy: Option<Bytes> = None;
        let mut own = || {
            copy.get_or_insert_with(|| Bytes::copy_from_slice(text))
                .clone()
        };
        for statement in &facts.statements {
            self.temporary |= statement.makes_temporary || !statement.opaque.is_empty();
            self.search_path_changed |= moves_path(role, statement);
            for setting in &statement.settings {
                let name = setting.name.as_str();
                if Reading::concerns(setting) {
                    self.reading.changing();
                }
                if MEANING.contains(&name) || name == "all" {
                    self.means(
                        name,
                        setting
                            .value
                            .clone()
                            .unwrap_or_else(|| "(reset)".to_owned()),
                    );
                }
            }
            for used in &statement.names {
                match used {
                    NameUse::Prepare { name, inner } => {
                        let prepared = prepared_from(inner, facts, own(), false);
                        let room = role
                            .limits
                            .names_bytes_max
                            .saturating_sub(self.portals.bytes());
                        self.statements.define(
                            name.as_bytes(),
                            &prepared,
                            None,
                            role.limits.names_max,
                            room,
                        )?;
                        changes.push(Change::Statement(name.as_bytes().into(), prepared));
                    }
                    NameUse::Declare { name, inner } => {
                        let prepared = prepared_from(inner, facts, own(), true);
                        let room = role
                            .limits
                            .names_bytes_max
                            .saturating_sub(self.statements.bytes());
                        self.portals.define(
                            name.as_bytes(),
                            &prepared,
                            None,
                            role.limits.names_max,
                            room,
                        )?;
                        changes.push(Change::Portal(name.as_bytes().into(), vec![prepared]));
                    }
                    NameUse::Deallocate { name } => {
                        changes.push(Change::CloseStatement(
                            name.as_ref().map(|n| n.as_bytes().into()),
                        ));
                    }
                    NameUse::Close { name } => {
                        changes.push(Change::ClosePortal(
                            name.as_ref().map(|n| n.as_bytes().into()),
                        ));
                    }
                    NameUse::Execute { .. } | NameUse::Fetch { .. } => {}
                }
            }
        }
        Ok(())
    }

    pub(super) fn means(&mut self, name: &str, value: String) {
        let values = self.meaning.entry(name.to_owned()).or_default();
        // Which of them is in force after a rollback is not followed: all are
        // part of what an approval is for.
        if values.last() != Some(&value) {
            if values.len() >= VALUES_MAX {
                values.remove(0);
            }
            values.push(value);
        }
    }
}

fn prepared_text(prepared: &Prepared) -> PreparedText {
    PreparedText {
        text: prepared.text.clone(),
        types: prepared.types.clone(),
    }
}

/// The inner statement of a PREPARE or DECLARE, to stand under its name.
fn prepared_from(
    inner: &Arc<StatementFacts>,
    outer: &SqlFacts,
    text: Bytes,
    hold: bool,
) -> Arc<Prepared> {
    let facts = SqlFacts {
        statements: vec![inner.clone()],
        text_length: outer.text_length,
        tokens: outer.tokens,
    };
    Arc::new(Prepared {
        text,
        types: Box::from([]),
        facts: Arc::new(facts),
        inert: inner.inert,
        hold,
    })
}
