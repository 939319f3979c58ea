//! From what was written to what was checked: defaults, ranges that depend on
//! other keys, names that must exist, files that must be readable.

use super::checked::*;
use super::document::{Complaint, Document};
use super::raw::*;
use super::roles;
use super::secret::SecretSource;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Collects complaints while sections are checked.
pub(super) struct Checker<'a> {
    document: &'a Document,
    base: &'a Path,
    complaints: Vec<Complaint>,
}

impl Checker<'_> {
    /// A complaint about the value at `path`.
    pub(super) fn complain(
        &mut self,
        path: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.complaints.push(Complaint {
            span: self.document.span(path),
            message: message.into(),
            help: help.into(),
        });
    }

    fn path(&self, text: &str) -> PathBuf {
        self.base.join(text)
    }

    /// A file that must be readable now.
    fn file(&mut self, key: &str, text: &Option<String>) -> Option<PathBuf> {
        let path = self.path(text.as_ref()?);
        if let Err(e) = std::fs::File::open(&path) {
            self.complain(key, format!("cannot read {}: {e}", path.display()), "");
        }
        Some(path)
    }

    /// Two files of which none or both must be given.
    fn pair(
        &mut self,
        at: &str,
        names: (&str, &str),
        a: &Option<String>,
        b: &Option<String>,
    ) -> Option<(PathBuf, PathBuf)> {
        if a.is_some() != b.is_some() {
            let (given, absent) = if a.is_some() {
                names
            } else {
                (names.1, names.0)
            };
            self.complain(
                &format!("{at}.{given}"),
                format!("`{given}` without `{absent}`"),
                "give both or none",
            );
        }
        Some((
            self.file(&format!("{at}.{}", names.0), a)?,
            self.file(&format!("{at}.{}", names.1), b)?,
        ))
    }

    fn unique<'t>(&mut self, section: &str, names: impl Iterator<Item = &'t str>) {
        let mut seen = HashSet::new();
        for (i, name) in names.enumerate() {
            if name.is_empty()
                || name.len() > 63
                || !name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            {
                self.complain(
                    &format!("{section}[{i}].name"),
                    format!("`{name}` is not a valid name"),
                    "1 to 63 letters, digits, `-`, `_` or `.`",
                );
            }
            if !seen.insert(name) {
                self.complain(
                    &format!("{section}[{i}].name"),
                    format!("`{name}` is named twice"),
                    "",
                );
            }
        }
    }
}

/// Checks everything; returns the configuration or every complaint.
pub(super) fn check(
    raw: RawConfig,
    document: &Document,
    base: &Path,
) -> Result<Config, Vec<Complaint>> {
    let mut c = Checker {
        document,
        base,
        complaints: Vec::new(),
    };
    let gateway = gateway(raw.gateway.unwrap_or_default(), &c);
    let targets = targets(&mut c, raw.targets.unwrap_or_default());
    let listeners = listeners(&mut c, raw.listeners.unwrap_or_default(), &targets);
    let control = control(&mut c, raw.control.unwrap_or_default(), &gateway);
    let approvals = approvals(raw.approvals.unwrap_or_default());
    let recorder = recorder(raw.recorder.unwrap_or_default(), &gateway, &c);
    let masking = masking(&mut c, raw.masking.unwrap_or_default());
    let raw_limits = raw.limits.unwrap_or_default();
    let limits = limits(&raw_limits);
    let issuers = issuers(&mut c, raw.issuers.unwrap_or_default());
    let (policy, roles) = roles::roles(
        &mut c,
        raw.roles.unwrap_or_default(),
        &raw_limits,
        &limits,
        &approvals,
        recorder.mode,
        &targets,
    );
    own_addresses(&mut c, &listeners, &control, &targets);
    if c.complaints.is_empty() {
        Ok(Config {
            gateway,
            listeners,
            control,
            approvals,
            recorder,
            masking,
            limits,
            issuers,
            targets,
            policy,
            roles,
        })
    } else {
        Err(c.complaints)
    }
}

fn gateway(raw: RawGateway, c: &Checker<'_>) -> Gateway {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Gateway {
        shards: raw.shards.map_or(cores, |n| n as usize),
        pin_cores: raw.pin_cores.unwrap_or(false),
        data_dir: c.path(raw.data_dir.as_deref().unwrap_or("portcullis-data")),
        drain: Duration::from_millis(raw.drain_ms.unwrap_or(10_000)),
        login: Duration::from_millis(raw.login_ms.unwrap_or(15_000)),
        connections_max: raw.connections_max.unwrap_or(10_000) as usize,
        connections_per_source_max: raw.connections_per_source_max.unwrap_or(1000) as usize,
        logins_per_source_max: raw.logins_per_source_max.unwrap_or(100) as usize,
        log_level: match raw.log_level.as_deref() {
            Some("error") => tracing::Level::ERROR,
            Some("warn") => tracing::Level::WARN,
            Some("debug") => tracing::Level::DEBUG,
            Some("trace") => tracing::Level::TRACE,
            _ => tracing::Level::INFO,
        },
    }
}

fn listeners(c: &mut Checker<'_>, raw: Vec<RawListener>, targets: &[Target]) -> Vec<Listener> {
    if raw.is_empty() {
        c.complain(
            "listeners",
            "no listener",
            "add a [[listeners]] section with `name` and `address`",
        );
    }
    c.unique("listeners", raw.iter().filter_map(|l| l.name.as_deref()));
    let mut out = Vec::new();
    for (i, l) in raw.into_iter().enumerate() {
        let at = format!("listeners[{i}]");
        let address = socket_address(
            c,
            &format!("{at}.address"),
            l.address.as_deref().unwrap_or_default(),
        );
        let certificate = c.pair(
            &at,
            ("certificate_file", "key_file"),
            &l.certificate_file,
            &l.key_file,
        );
        let tls = match l.tls.as_deref() {
            Some("off") => ListenerTls::Off,
            Some("optional") => ListenerTls::Optional,
            Some(_) => ListenerTls::Required,
            None if l.certificate_file.is_some() => ListenerTls::Required,
            None => ListenerTls::Off,
        };
        if tls != ListenerTls::Off && l.certificate_file.is_none() {
            c.complain(
                &format!("{at}.tls"),
                "TLS needs a certificate",
                "add `certificate_file` and `key_file`",
            );
        }
        if tls == ListenerTls::Off && !address.ip().is_loopback() {
            c.complain(
                &format!("{at}.address"),
                "a listener beyond loopback needs TLS, since agents send their tokens over it",
                "add `certificate_file` and `key_file`",
            );
        }
        let client_ca = c.file(&format!("{at}.client_ca_file"), &l.client_ca_file);
        if client_ca.is_some() && tls == ListenerTls::Off {
            c.complain(
                &format!("{at}.client_ca_file"),
                "client certificates need TLS",
                "",
            );
        }
        let oauth = (l.login.as_deref() == Some("oauth")).then(|| {
            if l.oauth_issuer.is_none() {
                c.complain(
                    &format!("{at}.login"),
                    "login = \"oauth\" needs `oauth_issuer`",
                    "",
                );
            }
            if tls == ListenerTls::Off {
                c.complain(&format!("{at}.login"), "OAUTHBEARER needs TLS", "");
            }
            (
                l.oauth_issuer.clone().unwrap_or_default(),
                l.oauth_scope.clone().unwrap_or_else(|| "openid".into()),
            )
        });
        if let Some(target) = &l.target
            && !targets.iter().any(|t| t.name == *target)
        {
            c.complain(
                &format!("{at}.target"),
                format!("no target is named `{target}`"),
                "",
            );
        }
        let mut balancers = Vec::new();
        for (j, text) in l.proxy_protocol_from.unwrap_or_default().iter().enumerate() {
            match text.parse::<IpAddr>() {
                Ok(ip) => balancers.push(ip),
                Err(_) => c.complain(
                    &format!("{at}.proxy_protocol_from[{j}]"),
                    format!("`{text}` is not an IP address"),
                    "",
                ),
            }
        }
        out.push(Listener {
            name: l.name.unwrap_or_default(),
            address,
            tls,
            certificate,
            client_ca,
            oauth,
            target: l.target,
            proxy_protocol_from: balancers,
        });
    }
    out
}

fn socket_address(c: &mut Checker<'_>, key: &str, text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| {
        c.complain(
            key,
            format!("`{text}` is not an ADDRESS:PORT"),
            "for example 127.0.0.1:6432 or [::1]:6432",
        );
        SocketAddr::from(([127, 0, 0, 1], 0))
    })
}

fn control(c: &mut Checker<'_>, raw: RawControl, gateway: &Gateway) -> Control {
    let text = raw.address.as_deref().unwrap_or("127.0.0.1:7432");
    let address = if let Some(path) = text.strip_prefix("unix:") {
        ControlAddress::Unix(c.path(path))
    } else {
        let address = socket_address(c, "control.address", text);
        if !address.ip().is_loopback() {
            c.complain(
                "control.address",
                "the control plane listens on loopback or a Unix socket only",
                "for example 127.0.0.1:7432",
            );
        }
        ControlAddress::Loopback(address)
    };
    Control {
        address,
        admin_token_file: raw
            .admin_token_file
            .map_or_else(|| gateway.data_dir.join("admin.token"), |p| c.path(&p)),
        store_file: raw
            .store_file
            .map_or_else(|| gateway.data_dir.join("control.db"), |p| c.path(&p)),
    }
}

fn approvals(raw: RawApprovals) -> Approvals {
    Approvals {
        wait_s: raw.wait_s.unwrap_or(300),
        wait_in_transaction_s: raw.wait_in_transaction_s.unwrap_or(60),
        valid_s: raw.valid_s.unwrap_or(3600),
        pending_per_principal_max: raw.pending_per_principal_max.unwrap_or(20) as usize,
        cool_down_s: raw.cool_down_s.unwrap_or(60),
    }
}

fn recording(text: Option<&str>, default: RecordingMode) -> RecordingMode {
    match text {
        Some("requests") => RecordingMode::Requests,
        Some(_) => RecordingMode::Async,
        None => default,
    }
}

fn recorder(raw: RawRecorder, gateway: &Gateway, c: &Checker<'_>) -> Recorder {
    Recorder {
        dir: raw
            .dir
            .map_or_else(|| gateway.data_dir.join("record"), |p| c.path(&p)),
        mode: recording(raw.mode.as_deref(), RecordingMode::Async),
        group_commit_ms: raw.group_commit_ms.unwrap_or(50),
        segment_bytes_max: raw.segment_bytes_max.unwrap_or(64 << 20),
        total_bytes_max: raw.total_bytes_max.unwrap_or(10 << 30),
        delete_oldest: raw.at_cap.as_deref() == Some("delete_oldest"),
        ring_entries: raw.ring_entries.unwrap_or(16_384) as usize,
        rows_bytes_max: raw.rows_bytes_max.unwrap_or(65_536) as usize,
        text_bytes_max: raw.text_bytes_max.unwrap_or(1 << 20) as usize,
    }
}

fn masking(c: &mut Checker<'_>, raw: RawMasking) -> Masking {
    let mut detectors = Vec::new();
    let packs = raw.packs.unwrap_or_else(|| vec!["default".into()]);
    for (i, name) in packs.iter().enumerate() {
        match masking::builtin_pack(name) {
            Some(pack) => detectors.extend(pack),
            None => c.complain(
                &format!("masking.packs[{i}]"),
                format!("no detector pack is named `{name}`"),
                "known: default",
            ),
        }
    }
    for (i, d) in raw.detectors.unwrap_or_default().into_iter().enumerate() {
        let detector =
            masking::Detector::new(d.name.unwrap_or_default(), d.pattern.unwrap_or_default());
        // Compiled alone first, so that the complaint points at the culprit.
        let alone = masking::Config {
            detectors: vec![detector.clone()],
            ..masking::Config::default()
        };
        match masking::RuleSet::compile(alone) {
            Ok(_) => detectors.push(detector),
            Err(e) => c.complain(
                &format!("masking.detectors[{i}].pattern"),
                e.to_string(),
                "bounded, without anchors and look-around",
            ),
        }
    }
    c.unique(
        "masking.guard",
        raw.guard.iter().flatten().filter_map(|g| g.name.as_deref()),
    );
    let guards = raw
        .guard
        .unwrap_or_default()
        .into_iter()
        .enumerate()
        .filter_map(|(i, g)| {
            let secret = SecretSource::from_raw(&g.secret?, c.base)?;
            Some(Guard {
                name: g.name?,
                secret,
                path: format!("masking.guard[{i}].secret"),
            })
        })
        .collect();
    Masking {
        detectors,
        guards,
        danger_weak_secrets: raw.danger_weak_secrets.unwrap_or(false),
    }
}

fn limits(raw: &RawLimits) -> Limits {
    Limits {
        statement_bytes_max: raw.statement_bytes_max.unwrap_or(1 << 20) as usize,
        verdict_cache_bytes_max: raw.verdict_cache_bytes_max.unwrap_or(32 << 20) as usize,
        bind_bytes_max: raw.bind_bytes_max.unwrap_or(16 << 20) as usize,
        held_bytes_max: raw.held_bytes_max.unwrap_or(1 << 20) as usize,
        value_bytes_held_max: raw.value_bytes_held_max.unwrap_or(256 << 10) as usize,
    }
}

fn issuers(c: &mut Checker<'_>, raw: Vec<RawIssuer>) -> Vec<Issuer> {
    let mut out = Vec::new();
    for (i, r) in raw.into_iter().enumerate() {
        let at = format!("issuers[{i}]");
        let jwks = match (&r.jwks_file, &r.jwks_url) {
            (Some(_), None) => c
                .file(&format!("{at}.jwks_file"), &r.jwks_file)
                .map(JwksSource::File),
            (None, Some(url)) => Some(JwksSource::Url(url.clone())),
            _ => {
                c.complain(
                    &at,
                    "an issuer needs `jwks_file` or `jwks_url`, and not both",
                    "",
                );
                None
            }
        };
        let audiences = r.audiences.unwrap_or_default();
        if audiences.is_empty() {
            c.complain(
                &format!("{at}.audiences"),
                "at least one audience is needed",
                "a token for somebody else must not open this gateway",
            );
        }
        if let Some(jwks) = jwks {
            out.push(Issuer {
                issuer: r.issuer.unwrap_or_default(),
                audiences,
                jwks,
                groups_claim: r.groups_claim.unwrap_or_else(|| "groups".into()),
                subject_claim: r.subject_claim.unwrap_or_else(|| "sub".into()),
                leeway_s: r.leeway_s.unwrap_or(30),
            });
        }
    }
    out
}

fn targets(c: &mut Checker<'_>, raw: Vec<RawTarget>) -> Vec<Target> {
    if raw.is_empty() {
        c.complain(
            "targets",
            "no target",
            "add a [[targets]] section with `name`, `hosts` and `account`",
        );
    }
    c.unique("targets", raw.iter().filter_map(|t| t.name.as_deref()));
    raw.into_iter()
        .enumerate()
        .map(|(i, t)| target(c, &format!("targets[{i}]"), t))
        .collect()
}

fn target(c: &mut Checker<'_>, at: &str, t: RawTarget) -> Target {
    let mut hosts = Vec::new();
    for (j, text) in t.hosts.iter().flatten().enumerate() {
        match host(text) {
            Some(h) => hosts.push(h),
            None => c.complain(
                &format!("{at}.hosts[{j}]"),
                format!("`{text}` is not a HOST:PORT"),
                "for example db.internal:5432",
            ),
        }
    }
    if t.hosts.as_ref().is_none_or(Vec::is_empty) {
        c.complain(
            &format!("{at}.hosts"),
            "a target needs at least one host",
            "",
        );
    }
    let direct = t.tls_direct.unwrap_or(false);
    let tls = if t.tls.as_deref() == Some("off") {
        if !hosts.iter().all(is_loopback) && !t.danger_clear_text.unwrap_or(false) {
            c.complain(
                &format!("{at}.tls"),
                "clear text to a host that is not loopback",
                "set `danger_clear_text = true` if the path is protected otherwise",
            );
        }
        TargetTls::Off
    } else if t.danger_tls_unverified.unwrap_or(false) {
        TargetTls::Unverified { direct }
    } else {
        TargetTls::Verify {
            ca_file: c.file(&format!("{at}.ca_file"), &t.ca_file),
            direct,
        }
    };
    let channel_binding_required = t.channel_binding.as_deref() == Some("require");
    if channel_binding_required && tls == TargetTls::Off {
        c.complain(
            &format!("{at}.channel_binding"),
            "channel binding needs TLS",
            "",
        );
    }
    let account = match t.account.as_deref() {
        Some("{user}") => Account::FromAgent,
        Some(name) => Account::Fixed(name.to_string()),
        None => Account::Fixed(String::new()),
    };
    Target {
        name: t.name.unwrap_or_default(),
        hosts,
        tls,
        server_name: t.server_name,
        database: t.database,
        databases: t.databases.unwrap_or_else(|| vec!["*".into()]),
        account,
        password: t.password.and_then(|s| SecretSource::from_raw(&s, c.base)),
        client_certificate: c.pair(
            at,
            ("client_certificate_file", "client_key_file"),
            &t.client_certificate_file,
            &t.client_key_file,
        ),
        channel_binding_required,
        allow_md5: t.allow_md5.unwrap_or(false),
        connect: Duration::from_millis(t.connect_ms.unwrap_or(10_000)),
        connections_max: t.connections_max.unwrap_or(100) as usize,
        connections_per_principal_max: t.connections_per_principal_max.unwrap_or(100) as usize,
        queue_max: t.queue_max.unwrap_or(100) as usize,
        queue: Duration::from_millis(t.queue_ms.unwrap_or(5000)),
    }
}

fn host(text: &str) -> Option<Host> {
    let (name, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|p| *p != 0)?;
    let name = match name.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if name.contains(':') => return None,
        None => name,
    };
    (!name.is_empty()).then(|| Host {
        name: name.to_string(),
        port,
    })
}

fn is_loopback(host: &Host) -> bool {
    host.name == "localhost" || host.name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The gateway's own addresses can never be a target: an agent would reach
/// itself, or the control plane, with the gateway's credentials.
fn own_addresses(
    c: &mut Checker<'_>,
    listeners: &[Listener],
    control: &Control,
    targets: &[Target],
) {
    let mut own: Vec<SocketAddr> = listeners.iter().map(|l| l.address).collect();
    if let ControlAddress::Loopback(address) = control.address {
        own.push(address);
    }
    for (i, target) in targets.iter().enumerate() {
        for (j, host) in target.hosts.iter().enumerate() {
            let local = |ip: IpAddr| match host.name.parse::<IpAddr>() {
                Ok(h) => {
                    h == ip
                        || (ip.is_unspecified() && h.is_loopback())
                        || (h.is_unspecified() && ip.is_loopback())
                }
                Err(_) => host.name == "localhost" && (ip.is_loopback() || ip.is_unspecified()),
            };
            if own
                .iter()
                .any(|a| a.port() == host.port && a.port() != 0 && local(a.ip()))
            {
                c.complain(
                    &format!("targets[{i}].hosts[{j}]"),
                    "this is an address of the gateway itself",
                    "a target must be another program",
                );
            }
        }
    }
}
