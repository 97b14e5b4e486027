//! What a guest requests of its pool.

use std::path::absolute;

use baton_config::{ConsoleConfig, GuestConfig};
use baton_host::commanded::CommandedVcpus;
use baton_link::message::{JoinRequest, MAX_PATH, Share, VcpuRequest};

/// The request of the guest of `config`, whose vCPUs' threads have the ids `tids`.
pub(super) fn request(config: &GuestConfig, tids: impl Iterator<Item = i32>) -> JoinRequest {
    let shares = config.reservations.iter().zip(&config.host_cpus);
    let vcpus = tids.zip(shares).map(|(tid, (reservation, host_cpus))| {
        let share = Share {
            reservation: reservation.map(Into::into),
            host_cpus: host_cpus.clone(),
            weight: None,
        };
        VcpuRequest { tid, share }
    });
    JoinRequest {
        name: config.name.clone(),
        console: console(&config.console),
        hints: String::new(),
        weight: config.weight,
        kick_signal: CommandedVcpus::kick_signal(),
        restarts: 0,
        is_paused: false,
        vcpus: vcpus.collect(),
    }
}

/// Puts the `shares` that the pool reports into `request`, so that the guest joins again with them.
pub(super) fn replace(request: &mut JoinRequest, shares: Vec<Share>) {
    // One for each vCPU, if the pool keeps to the protocol.
    for (vcpu, share) in request.vcpus.iter_mut().zip(shares) {
        vcpu.share = share;
    }
}

/// The socket of the console, if it has one that a message can name.
fn console(config: &ConsoleConfig) -> Option<String> {
    let ConsoleConfig::Unix(path) = config else {
        return None;
    };
    let path = absolute(path).ok()?.into_os_string().into_string().ok()?;
    let fits = path.len() <= MAX_PATH && path.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    fits.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_reads_the_claims_of_the_configuration() {
        let mut config = GuestConfig::new("db").with_cpus(2);
        config.weight = 50;
        config.reservations[0] = "5ms/20ms/10ms,soft".parse().ok();
        config.host_cpus[1] = Some(vec![1, 3]);
        config.console = "unix:/run/db.sock".parse().expect("a console");
        let request = request(&config, [100, 101].into_iter());
        assert_eq!(request.console.as_deref(), Some("/run/db.sock"));
        assert_eq!((&*request.name, request.weight), ("db", 50));
        let shares = request.check().expect("it makes sense");
        assert_eq!(shares[0].reservation, config.reservations[0]);
        assert_eq!(shares[1].reservation, None);
        assert_eq!(shares[0].host_cpus, None);
        assert_eq!(shares[1].host_cpus, Some(vec![1, 3]));
    }
}
