//! `[failover]`: which server is the primary when the one that is configured dies.

use std::time::Duration;

use tidegate_cluster::{Fencing, Mode, Policy, ResyncPolicy};

use super::check::{Checker, or, timeout};
use super::checked::{ClusterConfig, Secret};
use super::managers::{EtcdSettings, PatroniSettings};
use super::raw::{At, RawFailover};
use super::value::{Context, FromText, choice};

/// A command that fences is given this long unless the configuration says otherwise.
const FENCE_TIME_MAX: Duration = Duration::from_secs(10);

/// A replica that does not follow is made anew after this, unless the configuration says otherwise.
const RESYNC_AFTER: Duration = Duration::from_secs(60);

/// `[failover]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailoverSettings {
    pub policy: Policy,
    /// Program and arguments; empty: none.
    pub fence_command: Vec<String>,
    pub fence_timeout: Duration,
    pub rejoin_command: Vec<String>,
    /// When replicas that do not follow are seen to; `None`: never.
    pub resync: Option<ResyncPolicy>,
    /// Who asks and acts; the user of each URL unless it is there.
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// Who of several Tidegates may promote; there with `mode = "etcd"`.
    pub etcd: Option<EtcdSettings>,
    /// Who promotes; there with `mode = "external"`.
    pub patroni: Option<PatroniSettings>,
}

/// `failover.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailoverMode(pub Mode);

impl FailoverMode {
    pub const ALL: [Self; 5] = [
        Self(Mode::Off),
        Self(Mode::Follow),
        Self(Mode::Embedded),
        Self(Mode::Etcd),
        Self(Mode::External),
    ];

    pub fn as_str(self) -> &'static str {
        match self.0 {
            Mode::Off => "off",
            Mode::Follow => "follow",
            Mode::Embedded => "embedded",
            Mode::Etcd => "etcd",
            Mode::External => "external",
        }
    }
}

impl FromText for FailoverMode {
    const EXPECTED: &'static str = "off, follow, embedded, etcd or external";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        choice(text, &Self::ALL, Self::as_str)
    }
}

/// `failover.fencing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FencingWord(pub Fencing);

impl FencingWord {
    pub const ALL: [Self; 2] = [Self(Fencing::BestEffort), Self(Fencing::Required)];

    pub fn as_str(self) -> &'static str {
        match self.0 {
            Fencing::BestEffort => "best-effort",
            Fencing::Required => "required",
        }
    }
}

impl FromText for FencingWord {
    const EXPECTED: &'static str = "best-effort or required";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        choice(text, &Self::ALL, Self::as_str)
    }
}

fn resync_policy(rebuild_after: Duration) -> ResyncPolicy {
    ResyncPolicy {
        repoint_after: rebuild_after / 6,
        rebuild_after,
        again_after: rebuild_after.saturating_mul(10),
    }
}

impl Checker {
    pub(super) fn failover(
        &mut self,
        written: RawFailover,
        cluster: Option<&ClusterConfig>,
    ) -> FailoverSettings {
        self.contradicts(&written, cluster.map_or(0, |cluster| cluster.replicas.len()));
        let default = Policy::default();
        let words = |command: &[At<String>]| -> Vec<String> {
            command.iter().map(|word| word.value.clone()).collect()
        };
        let (fence_command, rejoin_command) =
            (words(&written.fence_command), words(&written.rejoin_command));
        let lag_bytes_max =
            self.bounded("failover.lag_bytes_max", written.lag_bytes_max, 0..=usize::MAX, 1 << 20);
        let mode = written.mode.as_ref().map_or(default.mode, |mode| mode.value.0);
        let etcd = self.etcd(written.etcd);
        let patroni = self.patroni(written.patroni, cluster);
        if let Some(At { origin, .. }) = &written.mode {
            match (mode, &etcd, &patroni) {
                (Mode::Etcd, None, _) => {
                    let message = "says that etcd decides who promotes: write failover.etcd.urls";
                    self.contradiction(origin, "failover.mode", message);
                }
                (Mode::External, _, None) => {
                    let message = "says that Patroni promotes: write failover.patroni.urls";
                    self.contradiction(origin, "failover.mode", message);
                }
                _ => {}
            }
        }
        FailoverSettings {
            etcd: etcd.filter(|_| mode == Mode::Etcd),
            patroni: patroni.filter(|_| mode == Mode::External),
            policy: Policy {
                mode,
                fencing: written.fencing.map_or(default.fencing, |word| word.value.0),
                has_fence: !fence_command.is_empty(),
                hold_max: or(&written.hold_max, default.hold_max),
                silent_max: or(&written.silent_max, default.silent_max),
                restart_max: or(&written.restart_max, default.restart_max),
                lag_bytes_max: lag_bytes_max as u64,
                interval_min: or(&written.interval_min, default.interval_min),
            },
            fence_command,
            fence_timeout: or(&written.fence_timeout, FENCE_TIME_MAX),
            rejoin_command,
            resync: timeout(&written.resync_after, Some(RESYNC_AFTER)).map(resync_policy),
            user: written.user.map(|user| user.value),
            password: written.password.map(|password| password.value),
        }
    }

    fn contradicts(&mut self, written: &RawFailover, replicas: usize) {
        if let Some(At { value: FailoverMode(mode), origin }) = &written.mode
            && (mode.promotes() || *mode == Mode::External)
            && replicas == 0
        {
            let message = "there is no replica to promote: name them in cluster.replicas";
            self.contradiction(origin, "failover.mode", message);
        }
        if let (Some(password), None) = (&written.password, &written.user) {
            let message = "whose password it is says failover.user, which is missing";
            self.contradiction(&password.origin, "failover.password", message);
        }
        if let Some(At { value: FencingWord(Fencing::Required), origin }) = &written.fencing
            && written.fence_command.is_empty()
        {
            let message = "nothing could stop the old primary, so nobody would ever be promoted: \
                           write failover.fence_command";
            self.contradiction(origin, "failover.fencing", message);
        }
    }
}
