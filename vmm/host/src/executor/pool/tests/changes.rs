//! Changes of a guest by several threads at once.

use std::thread;

use baton_machine::kvm;

use super::*;
use crate::executor::change::VcpuChange;
use crate::executor::pool_handle::PoolHandle;

#[test]
fn after_two_changes_at_once_the_threads_of_a_vcpu_have_the_host_cpus_that_the_policy_has() {
    let host_cpus = [0, 1];
    let pool = Arc::new(empty_pool_of(&host_cpus));
    let handle = PoolHandle::new(&pool);
    let kvm = kvm::open().expect("KVM");
    handle.join(ready_guest(&kvm, "guest")).expect("room");
    let change = |cpu| {
        let change = VcpuChange::HostCpus(Some(vec![cpu]));
        handle.set("guest", None, &change).expect("no reservation");
    };
    for _ in 0..2_000 {
        thread::scope(|scope| {
            scope.spawn(|| change(0));
            change(1);
        });
        let state = pool.lock();
        let id = state.guests.named("guest").expect("it has joined");
        let guest = state.guests.get(id).expect("it has joined");
        for terms in &guest.terms {
            let of_policy = admission::on_host(terms.allowed, &host_cpus);
            assert_eq!(*terms.host_cpus.get(), *of_policy);
        }
    }
}
