//! Changes of a guest by several threads at once.

use std::thread;

use baton_machine::kvm;

use super::*;
use crate::executor::change::VcpuChange;
use crate::executor::pool_handle::PoolHandle;

#[test]
fn while_threads_change_a_guest_its_vcpus_threads_have_the_host_cpus_that_the_policy_has() {
    let host_cpus = [0, 1];
    let pool = Arc::new(empty_pool_of(&host_cpus));
    let handle = PoolHandle::new(&pool);
    let kvm = kvm::open().expect("KVM");
    handle.join(ready_guest(&kvm, "guest")).expect("room");
    let change = |vcpu| {
        for cpu in [0, 1].repeat(2_000) {
            let change = VcpuChange::HostCpus(Some(vec![cpu]));
            let changed = handle.set("guest", Some(vcpu), &change);
            changed.expect("no reservation");
        }
    };
    let check = || {
        let state = pool.lock();
        let id = state.guests.named("guest").expect("it has joined");
        for terms in &state.guests.get(id).expect("it has joined").terms {
            let of_policy = admission::on_host(terms.allowed, &host_cpus);
            assert_eq!(*terms.host_cpus.get(), *of_policy);
        }
    };
    thread::scope(|scope| {
        let changing = [0, 1].map(|vcpu| scope.spawn(move || change(vcpu)));
        while !changing.iter().all(|thread| thread.is_finished()) {
            check();
        }
    });
    check();
}
