//! Who may do what in a pool.
//!
//! | who | see | have guests join | change a guest |
//! |---|---|---|---|
//! | root, and the pool's own user | all | within the pool | any |
//! | a user with a grant | all | within his grant | his own, within his grant |
//! | others | nothing | no | no |
//!
//! A user is who the kernel reports at the other end of the socket. Of several grants, the first in the file that
//! names him or one of his groups is his.

use baton_os::peer::Peer;
use thiserror::Error;
use vcpu_sched::SchedParams;

/// Parts of a CPU in which reservations are added up.
pub const PPM: u64 = 1_000_000;

/// To whom a grant is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grantee {
    /// A user.
    User(u32),
    /// All users of a group.
    Group(u32),
}

impl Grantee {
    fn is(self, peer: &Peer) -> bool {
        match self {
            Self::User(uid) => uid == peer.uid,
            Self::Group(gid) => peer.groups.contains(&gid),
        }
    }
}

/// What a user may have in the pool. `None` is no bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantTerms {
    /// Sum of the reservations of all his guests, millionths of a CPU.
    pub max_reservation: Option<u64>,
    /// Weight of each vCPU.
    pub max_weight: Option<u32>,
    /// Number of vCPUs of all his guests.
    pub max_vcpus: Option<u32>,
    /// Number of guests.
    pub max_guests: Option<u32>,
    /// Host CPUs on which his guests may run, ascending.
    pub host_cpus: Option<Vec<usize>>,
}

/// What is done to a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To see what runs.
    See,
    /// To have a guest join.
    Join,
    /// To change a guest, or order something of it. It belongs to this user; `None`: to the pool.
    Control(Option<u32>),
    /// To change the host CPUs of the pool.
    ChangePool,
}

/// What a caller may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Everything.
    All,
    /// What the table of this module has for a user with these terms.
    Granted(GrantTerms),
    /// Nothing.
    None,
}

/// A request is not permitted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Denied {
    /// The user has no grant.
    #[error("user {0} has no grant in this pool; have root add a [[grant]] to its configuration")]
    NoGrant(u32),
    /// The guest belongs to somebody else.
    #[error("the guest belongs to another user; only that user and root may change it")]
    NotYours,
    /// Only root and the user of the pool may change the pool.
    #[error("only root and the user of the pool may change its host CPUs")]
    NotThePools,
    /// The user would have too many guests.
    #[error("your grant has {0} guests at most; end one of yours first")]
    Guests(u32),
    /// The user would have too many vCPUs.
    #[error(
        "your grant has {max} vCPUs at most, and this makes {wanted}; end one of your guests first"
    )]
    Vcpus {
        /// The bound.
        max: u32,
        /// What was requested.
        wanted: u32,
    },
    /// The user would have reserved too much.
    #[error(
        "your grant has reservations of {}.{:02} CPUs at most, and this makes {}.{:02}; reserve less",
        max / PPM, max % PPM / 10_000, wanted / PPM, wanted % PPM / 10_000
    )]
    Reservation {
        /// The bound, millionths of a CPU.
        max: u64,
        /// What was requested, millionths of a CPU.
        wanted: u64,
    },
    /// A weight is too high.
    #[error("your grant has a weight of {max} at most, and {wanted} was requested")]
    Weight {
        /// The bound.
        max: u32,
        /// What was requested.
        wanted: u32,
    },
    /// A vCPU would run on a host CPU that is not the user's.
    #[error("host CPU {cpu} is not in your grant, which has {granted}")]
    HostCpu {
        /// The host CPU.
        cpu: usize,
        /// Those of the grant.
        granted: String,
    },
}

/// The grants of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// The user of the pool's process.
    own_uid: u32,
    grants: Vec<(Grantee, GrantTerms)>,
}

impl Grants {
    /// These `grants` in the pool of user `own_uid`.
    #[must_use]
    pub fn new(own_uid: u32, grants: Vec<(Grantee, GrantTerms)>) -> Self {
        Self { own_uid, grants }
    }

    /// What `peer` may do.
    #[must_use]
    pub fn of(&self, peer: &Peer) -> Rights {
        if peer.uid == 0 || peer.uid == self.own_uid {
            return Rights::All;
        }
        let mut grants = self.grants.iter();
        match grants.find(|(grantee, _)| grantee.is(peer)) {
            Some((_, terms)) => Rights::Granted(terms.clone()),
            None => Rights::None,
        }
    }

    /// Whether `peer` may do `action`.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, peer: &Peer, action: Action) -> Result<Rights, Denied> {
        match (self.of(peer), action) {
            (Rights::None, _) => Err(Denied::NoGrant(peer.uid)),
            (Rights::Granted(_), Action::Control(owner)) if owner != Some(peer.uid) => {
                Err(Denied::NotYours)
            }
            (Rights::Granted(_), Action::ChangePool) => Err(Denied::NotThePools),
            (rights, _) => Ok(rights),
        }
    }
}

/// What vCPUs have on which conditions are put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuClaim {
    /// Its reservation or its weight.
    pub params: SchedParams,
    /// Its host CPUs; `None`: all of the pool.
    pub host_cpus: Option<Vec<usize>>,
}

/// What a user has in a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    guests: u32,
    vcpus: u32,
    /// Millionths of a CPU.
    reserved: u64,
}

impl Usage {
    /// Adds a guest with these vCPUs.
    pub fn add(&mut self, vcpus: &[VcpuClaim]) {
        self.guests += 1;
        self.vcpus += vcpus.len() as u32;
        self.reserved += vcpus
            .iter()
            .map(|vcpu| reserved_ppm(vcpu.params))
            .sum::<u64>();
    }
}

/// The reserved part of a CPU, in millionths, rounded up.
#[must_use]
pub fn reserved_ppm(params: SchedParams) -> u64 {
    match params {
        SchedParams::Reserved(reservation) => {
            let budget = u128::from(reservation.budget()) * u128::from(PPM);
            budget.div_ceil(u128::from(reservation.period())) as u64
        }
        SchedParams::BestEffort { .. } => 0,
    }
}

impl GrantTerms {
    /// Whether a user who has `others` may have a guest with the vCPUs `claims` besides.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, others: Usage, claims: &[VcpuClaim]) -> Result<(), Denied> {
        let mut wanted = others;
        wanted.add(claims);
        if let Some(max) = self.max_guests.filter(|max| wanted.guests > *max) {
            return Err(Denied::Guests(max));
        }
        if let Some(max) = self.max_vcpus.filter(|max| wanted.vcpus > *max) {
            let wanted = wanted.vcpus;
            return Err(Denied::Vcpus { max, wanted });
        }
        if let Some(max) = self.max_reservation.filter(|max| wanted.reserved > *max) {
            let wanted = wanted.reserved;
            return Err(Denied::Reservation { max, wanted });
        }
        claims.iter().try_for_each(|claim| self.check_vcpu(claim))
    }

    fn check_vcpu(&self, claim: &VcpuClaim) -> Result<(), Denied> {
        if let (Some(max), SchedParams::BestEffort { weight: wanted }) =
            (self.max_weight, claim.params)
            && wanted > max
        {
            return Err(Denied::Weight { max, wanted });
        }
        if let (Some(granted), Some(cpus)) = (&self.host_cpus, &claim.host_cpus)
            && let Some(&cpu) = cpus.iter().find(|cpu| !granted.contains(cpu))
        {
            let granted = baton_config::units::format_cpus(granted);
            return Err(Denied::HostCpu { cpu, granted });
        }
        Ok(())
    }

    /// The host CPUs for a vCPU that is to run on `wanted`; `None` there is all that this user may use.
    #[must_use]
    pub fn host_cpus(&self, wanted: Option<Vec<usize>>) -> Option<Vec<usize>> {
        wanted.or_else(|| self.host_cpus.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, groups: &[u32]) -> Peer {
        Peer {
            pid: 1,
            uid,
            groups: groups.to_vec(),
        }
    }

    fn grants() -> Grants {
        let few = GrantTerms {
            max_guests: Some(1),
            ..GrantTerms::default()
        };
        Grants::new(
            500,
            vec![
                (Grantee::User(1000), few),
                (Grantee::Group(70), GrantTerms::default()),
            ],
        )
    }

    #[test]
    fn each_user_may_do_what_the_table_has_for_him() {
        let (own, other) = (Action::Control(Some(1000)), Action::Control(Some(1001)));
        let pools = Action::Control(None);
        for (peer, see, join, control_own, control_other, control_pools) in [
            (peer(0, &[0]), true, true, true, true, true),
            (peer(500, &[500]), true, true, true, true, true),
            (peer(1000, &[1000, 70]), true, true, true, false, false),
            (peer(1001, &[1001, 70]), true, true, false, true, false),
            (peer(1002, &[1002]), false, false, false, false, false),
        ] {
            for (action, permitted) in [
                (Action::See, see),
                (Action::Join, join),
                (own, control_own),
                (other, control_other),
                (pools, control_pools),
            ] {
                let answer = grants().check(&peer, action);
                assert_eq!(answer.is_ok(), permitted, "{} {action:?}", peer.uid);
            }
        }
    }

    #[test]
    fn the_first_grant_that_names_a_user_or_his_group_is_his() {
        let Rights::Granted(terms) = grants().of(&peer(1000, &[70])) else {
            panic!("he has a grant");
        };
        assert_eq!(terms.max_guests, Some(1));
    }

    #[test]
    fn a_grant_bounds_the_sum_of_all_guests_and_each_vcpu() {
        let reserved = |text: &str| VcpuClaim {
            params: SchedParams::Reserved(text.parse().expect("a reservation")),
            host_cpus: None,
        };
        let weighed = |weight, cpus: Option<&[usize]>| VcpuClaim {
            params: SchedParams::BestEffort { weight },
            host_cpus: cpus.map(<[usize]>::to_vec),
        };
        let terms = GrantTerms {
            max_reservation: Some(PPM),
            max_weight: Some(200),
            max_vcpus: Some(3),
            max_guests: Some(2),
            host_cpus: Some(vec![2, 3]),
        };
        let mut others = Usage::default();
        others.add(&[reserved("5ms/10ms")]);
        assert_eq!(terms.check(others, &[reserved("5ms/10ms")]), Ok(()));
        let too_much = Denied::Reservation {
            max: PPM,
            wanted: 1_000_100,
        };
        assert_eq!(
            terms.check(others, &[reserved("5001us/10ms")]),
            Err(too_much)
        );
        let sentence = terms
            .check(others, &[reserved("6ms/10ms")])
            .expect_err("too much");
        assert!(
            sentence
                .to_string()
                .contains("1.00 CPUs at most, and this makes 1.10"),
            "{sentence}"
        );
        let three = vec![weighed(1, None); 3];
        assert!(matches!(
            terms.check(others, &three),
            Err(Denied::Vcpus { max: 3, wanted: 4 })
        ));
        assert!(matches!(
            terms.check(others, &[weighed(201, None)]),
            Err(Denied::Weight { .. })
        ));
        assert_eq!(terms.check(others, &[weighed(200, Some(&[3]))]), Ok(()));
        let elsewhere = terms.check(others, &[weighed(1, Some(&[1, 2]))]);
        assert!(matches!(elsewhere, Err(Denied::HostCpu { cpu: 1, .. })));
        others.add(&[]);
        assert_eq!(
            terms.check(others, &[weighed(1, None)]),
            Err(Denied::Guests(2))
        );
        assert_eq!(terms.host_cpus(None), Some(vec![2, 3]));
    }
}
