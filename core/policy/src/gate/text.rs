//! From a text to its decision: caps, reading, cache, parser, rules.

use super::names::{Full, Prepared};
use super::reading::{Reading, Refusal};
use super::{Binds, Change, Intent, ParseJob, Pending, SessionFacts, SqlGate, Step, Waiting, job};
use crate::cache::{Key, Verdict, VerdictCache};
use crate::compile::Role;
use crate::decision::{Decision, DenyKind};
use crate::evaluate::{Circumstances, decide};
use crate::spec::Action;
use crate::sql::{
    FactsError, NAME_BYTES_MAX, Opaque, SqlFacts, StatementFacts, parsed, scan, shape,
};
use bytes::Bytes;
use std::sync::Arc;

/// Longest text looked up by its shape, in bytes.
const SHAPE_BYTES_MAX: usize = 4096;

/// Longest text that is copied into its verdict at once, in bytes.
const KEPT_BYTES_MAX: usize = 16 << 10;

impl SqlGate {
    pub(super) fn no_role(&self) -> Decision {
        Decision::deny(
            DenyKind::NoRole,
            "the principal has no role for this target",
            &self.policy.version_arc(),
        )
    }

    pub(super) fn too_long(&self) -> Decision {
        let reason = format!("a name of more than {NAME_BYTES_MAX} bytes: the server would cut it");
        Decision::deny(DenyKind::NameTooLong, reason, &self.policy.version_arc())
    }

    pub(super) fn refused(&self, refusal: Refusal) -> Decision {
        let kind = if refusal == Refusal::NotText {
            DenyKind::Encoding
        } else {
            DenyKind::Reading
        };
        Decision::deny(kind, refusal.reason(), &self.policy.version_arc())
    }

    pub(super) fn no_facts(&self, error: &FactsError) -> Decision {
        let kind = match error {
            FactsError::TooLong { .. }
            | FactsError::TooManyTokens { .. }
            | FactsError::TooDeep { .. } => DenyKind::TooLarge,
            FactsError::NotText => DenyKind::Encoding,
            FactsError::Unparsable => DenyKind::Unparsable,
        };
        Decision::deny(kind, error.to_string(), &self.policy.version_arc())
    }

    pub(super) fn full(&self, full: Full) -> Decision {
        let reason = match full {
            Full::Names => "the session holds too many prepared statements or portals; close some",
            Full::Texts => {
                "the name is redefined too often without waiting for the server's answers"
            }
            Full::Uses => "the text uses too many names of prepared statements and portals",
            Full::Bytes => "the session's prepared statements hold too much text; close some",
        };
        Decision::deny(DenyKind::TooManyNames, reason, &self.policy.version_arc())
    }

    /// A name that stands for nothing seen is as opaque as a DO block.
    pub(super) fn unknown(&self, role: &Role, what: &str) -> Decision {
        let statement = StatementFacts {
            kind: "unknown",
            kinds: vec!["unknown"],
            opaque: vec![Opaque::Because(format!(
                "a {what} that the gateway has not seen made"
            ))],
            ..StatementFacts::default()
        };
        let facts = SqlFacts {
            statements: vec![Arc::new(statement)],
            text_length: 0,
            tokens: 0,
        };
        let circumstances = Circumstances {
            session: &self.session,
            binds: Some(Binds::Unread),
            search_path_changed: self.search_path_changed,
        };
        let mut decision = decide(role, &facts, circumstances, |_, _, _| {});
        if decision.action == Action::Deny && decision.deny != Some(DenyKind::Rule) {
            decision.deny = Some(DenyKind::UnknownName);
            decision.rule = DenyKind::UnknownName.as_str().into();
            decision.reason = format!("a {what} that the gateway has not seen made").into();
        }
        decision
    }

    /// Caps, reading, cache; then the parser, here or off the shard.
    pub(super) fn admit(
        &mut self,
        unit: u64,
        text: &Bytes,
        intent: Intent,
        cache: &mut VerdictCache,
    ) -> Step {
        self.behind = Vec::new();
        let Some(role) = self.role.clone() else {
            return Step::Decided(self.no_role());
        };
        if !role.reads_sql() {
            return Step::Decided(self.pass.clone());
        }
        self.reading.first_unit();
        let limit = role.limits.statement_bytes_max;
        if text.len() > limit {
            return Step::Decided(self.no_facts(&FactsError::TooLong {
                length: text.len(),
                limit,
            }));
        }
        let in_flux = self.in_flux();
        let broken = self.reading.broken().is_some();
        if (in_flux || broken)
            && let Err(refusal) = self.reading.read(text, in_flux)
        {
            return Step::Decided(self.refused(refusal));
        }
        let state = self.state();
        let types: &[u32] = if let Intent::Parse { types, .. } = &intent {
            types
        } else {
            &[]
        };
        let mut buffer = std::mem::take(&mut self.shape);
        let shaped = !broken && text.len() <= SHAPE_BYTES_MAX && shape(text, &mut buffer);
        if shaped && role.reads_length() {
            // Such a role tells texts of one shape apart by their length alone.
            // A shape is ASCII, so the first of these bytes cannot be part of one.
            buffer.push(0xff);
            buffer.extend_from_slice(&(text.len() as u64).to_be_bytes());
        }
        let shape_key = Key {
            context: &self.context,
            state,
            types,
            text: &buffer,
            shaped: true,
        };
        let key = Key {
            context: &self.context,
            state,
            types,
            text,
            shaped: false,
        };
        let mut found = None;
        if shaped {
            found = cache.find(&shape_key);
        }
        if found.is_none() && !broken {
            found = cache.find(&key);
        }
        let step = match found {
            Some(verdict) => Ok(verdict),
            None => match self.parse_here(&role, text, in_flux) {
                Ok(Some(facts)) => {
                    let verdict = judge(
                        &role,
                        &self.session,
                        self.search_path_changed,
                        Arc::new(facts),
                        text,
                    );
                    if shaped && verdict.plain && shape_safe(&verdict.facts) {
                        cache.enter(
                            &shape_key,
                            &Arc::new(Verdict {
                                facts: verdict.facts.clone(),
                                decision: verdict.decision.clone(),
                                plain: true,
                                text: None,
                            }),
                        );
                    } else if !broken {
                        cache.enter(&key, &verdict);
                    }
                    Ok(verdict)
                }
                Ok(None) => Err(None),
                Err(decision) => Err(Some(decision)),
            },
        };
        self.shape = buffer;
        match step {
            Ok(verdict) => Step::Decided(self.conclude(unit, &role, intent, &verdict, text)),
            Err(Some(decision)) => Step::Decided(decision),
            Err(None) => {
                let readable = match self.reading.read(text, in_flux) {
                    Ok(std::borrow::Cow::Owned(readable)) => Some(readable),
                    Ok(std::borrow::Cow::Borrowed(_)) => None,
                    Err(refusal) => return Step::Decided(self.refused(refusal)),
                };
                self.waiting = Some(Waiting {
                    unit,
                    text: text.clone(),
                    intent,
                });
                Step::Parse(ParseJob {
                    unit,
                    text: text.clone(),
                    readable,
                    era: self.era(),
                    session: self.session.clone(),
                    search_path_changed: self.search_path_changed,
                    role,
                })
            }
        }
    }

    /// Parses a small, shallow text; `None` = it is for a job.
    pub(super) fn parse_here(
        &self,
        role: &Role,
        text: &[u8],
        in_flux: bool,
    ) -> Result<Option<SqlFacts>, Decision> {
        if text.len() > role.limits.parse_inline_bytes_max {
            return Ok(None);
        }
        let readable = self
            .reading
            .read(text, in_flux)
            .map_err(|refusal| self.refused(refusal))?;
        let seen = scan(text, &role.limits).map_err(|error| self.no_facts(&error))?;
        if seen.depth > job::SHALLOW {
            return Ok(None);
        }
        parsed(&readable, &seen)
            .map(Some)
            .map_err(|error| self.no_facts(&error))
    }

    /// From a text's verdict to the unit's decision.
    pub(super) fn conclude(
        &mut self,
        unit: u64,
        role: &Role,
        intent: Intent,
        verdict: &Arc<Verdict>,
        text: &Bytes,
    ) -> Decision {
        if self.reading.broken().is_some() && !mends(&verdict.facts) {
            return self.refused(self.reading.broken().unwrap_or(Refusal::Unknown));
        }
        for setting in verdict.facts.statements.iter().flat_map(|s| &s.settings) {
            if let Err(refusal) = self.reading.judge(setting) {
                return self.refused(refusal);
            }
        }
        let inert = verdict
            .facts
            .statements
            .iter()
            .all(|s| s.inert && !s.settings.iter().any(Reading::concerns));
        match intent {
            Intent::Query => self.conclude_query(unit, role, verdict, text, inert),
            Intent::Parse { name, types } => {
                let own = verdict.text.clone().filter(|own| own == text);
                self.conclude_parse(
                    unit,
                    role,
                    &name,
                    types,
                    verdict,
                    own.unwrap_or_else(|| Bytes::copy_from_slice(text)),
                    inert,
                )
            }
        }
    }

    pub(super) fn conclude_query(
        &mut self,
        unit: u64,
        role: &Role,
        verdict: &Verdict,
        text: &Bytes,
        inert: bool,
    ) -> Decision {
        let mut decision = verdict.decision.clone();
        if role.reads_binds() {
            // A Query binds nothing: rules that read binds see an empty list.
            let circumstances = Circumstances {
                session: &self.session,
                binds: Some(Binds::Values(&[])),
                search_path_changed: self.search_path_changed,
            };
            decision = decide(role, &verdict.facts, circumstances, |_, _, _| {});
        }
        let mut changes = Vec::new();
        if !verdict.plain {
            if let Some(names) = self.names_decision(role, &verdict.facts, 0) {
                decision = decision.stricter(names);
            }
            if decision.action != Action::Deny {
                match self.effects(role, &verdict.facts, text) {
                    Ok(more) => changes = more,
                    Err(full) => return self.full(full),
                }
            }
        }
        if decision.action != Action::Deny {
            self.pend(Pending {
                unit,
                inert,
                several: verdict.facts.statements.len() > 1,
                changes,
            });
        }
        decision
    }

    #[allow(clippy::too_many_arguments)] // one call, from `conclude`
    pub(super) fn conclude_parse(
        &mut self,
        unit: u64,
        role: &Role,
        name: &[u8],
        types: Box<[u32]>,
        verdict: &Verdict,
        text: Bytes,
        inert: bool,
    ) -> Decision {
        let mut decision = verdict.decision.clone();
        if decision.action == Action::Deny {
            return decision;
        }
        let prepared = self
            .statements
            .same(name, &text, &types, &verdict.facts)
            .unwrap_or_else(|| {
                Arc::new(Prepared {
                    text,
                    types,
                    facts: verdict.facts.clone(),
                    inert,
                    hold: false,
                })
            });
        let decided = Some((self.era(), decision.clone()));
        let room = role
            .limits
            .names_bytes_max
            .saturating_sub(self.portals.bytes());
        if let Err(full) =
            self.statements
                .define(name, &prepared, decided, role.limits.names_max, room)
        {
            return self.full(full);
        }
        // Parsing runs nobody's code, whatever the statement does later.
        self.pend(Pending {
            unit,
            inert: true,
            several: false,
            changes: vec![Change::Statement(name.into(), prepared)],
        });
        if decision.action == Action::Approve {
            decision.action = Action::Allow;
            decision.approval = None;
            decision.reason = format!("{}: at Bind", decision.reason).into();
        }
        decision
    }
}

/// What the rules say of a text by itself.
pub(super) fn judge(
    role: &Role,
    session: &SessionFacts,
    search_path_changed: bool,
    facts: Arc<SqlFacts>,
    text: &Bytes,
) -> Arc<Verdict> {
    let circumstances = Circumstances {
        session,
        binds: None,
        search_path_changed,
    };
    let decision = decide(role, &facts, circumstances, |_, _, _| {});
    let plain = facts.statements.iter().all(|s| {
        s.names.is_empty()
            && s.settings.is_empty()
            && s.opaque.is_empty()
            && !s.makes_temporary
            && s.set_role.is_none()
    });
    // A copy, since the text must not hold on to a shard's read buffer; of a
    // large one only when a name or the cache needs it.
    let text = (text.len() <= KEPT_BYTES_MAX).then(|| Bytes::copy_from_slice(text));
    Arc::new(Verdict {
        facts,
        decision,
        plain,
        text,
    })
}

/// Whether a text only puts the reading of text right: SETs of the two
/// settings to values that were judged good.
fn mends(facts: &SqlFacts) -> bool {
    !facts.statements.is_empty()
        && facts.statements.iter().all(|s| {
            s.kinds == ["set"]
                && !s.settings.is_empty()
                && s.settings.iter().all(|x| {
                    x.known
                        && x.value.is_some()
                        && matches!(
                            x.name.as_str(),
                            "standard_conforming_strings" | "client_encoding"
                        )
                })
        })
}

/// Whether facts cannot depend on the value of an integer constant.
fn shape_safe(facts: &SqlFacts) -> bool {
    facts.statements.iter().all(|s| {
        !s.literal_bound
            && s.kinds.iter().all(|k| {
                matches!(
                    *k,
                    "select" | "insert" | "update" | "delete" | "merge" | "select_for_update"
                )
            })
    })
}
