/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT */
/*
 * Paravirt hints between a guest and Baton, version 1.
 *
 * One 4 KiB page per vCPU in guest memory, found and registered through a fixed
 * block of I/O ports. All fields are in x86's byte order. The first cache line
 * is written by the guest's vCPU alone, the second by the host alone.
 *
 * src/abi.rs says the same in Rust, with more about how the two sides use it; a
 * test holds the two against each other.
 */
#ifndef BATON_HINTS_H
#define BATON_HINTS_H

#include <linux/types.h>

/* The port block; all accesses are 32 bits wide. */
#define BATON_PORT_MAGIC	0xba70	/* in: BATON_MAGIC */
#define BATON_PORT_FEATURES	0xba74	/* in: version (15:0), features (31:16) */
#define BATON_PORT_HINT_PAGE	0xba78	/* out: page frame number, 0 takes it back */
#define BATON_PORT_DOORBELL	0xba7c	/* out: reason, argument above it */

#define BATON_MAGIC		0x6e746142	/* "Batn" */
#define BATON_VERSION		1

#define BATON_FEATURE_BLOCK_WAIT	(1U << 0)	/* understands block_wait at idle */
#define BATON_FEATURE_RUNNING		(1U << 1)	/* keeps host.running exact */
#define BATON_FEATURE_PROXY		(1U << 2)	/* runs holders on waiters' budgets */
#define BATON_FEATURE_DEFER		(1U << 3)	/* may defer a holder's preemption */
#define BATON_FEATURE_IPI_WAIT		(1U << 4)	/* understands ipi_wait */

/*
 * Doorbell reasons; the argument goes above BATON_DOORBELL_REASON_BITS. A RELEASE
 * nobody asked for, with a WAIT_NONE record whose lock is not 0, says that this
 * lock went to the vCPU of arg, for whom its other sleepers wait from now on.
 */
#define BATON_DOORBELL_WAIT		1	/* whom my record names does not run */
#define BATON_DOORBELL_RELEASE		2	/* arg: vCPU the lock went to + 1, or 0 */
#define BATON_DOORBELL_IDLE		3	/* until woken or guest.idle_until_tsc */
/*
 * WAKE, arg: vCPU to wake. If it sleeps with a WAIT_BLOCK record that names the
 * ringing vCPU as holder, this also hands it the lock, or its turn to take it: the
 * lock's other sleepers wait for it from now on. No RELEASE is needed.
 */
#define BATON_DOORBELL_WAKE		4
#define BATON_DOORBELL_REASON_BITS	8
#define BATON_DOORBELL(reason, arg) \
	((reason) | ((__u32)(arg) << BATON_DOORBELL_REASON_BITS))

/* baton_guest_hints.wait_kind */
#define BATON_WAIT_NONE		0
#define BATON_WAIT_SPIN		1	/* spins until the holder releases or moves up */
#define BATON_WAIT_BLOCK	2	/* a task sleeps on a mutex, the vCPU is idle */
#define BATON_WAIT_IPI		3	/* spins until the holder has handled an IPI */

#define BATON_HOLDER_UNKNOWN	0xffffffffU

/* baton_guest_hints.held: locks held or being taken (7:0), releases (31:8). */
#define BATON_HELD_DEPTH_BITS	8
#define BATON_HELD_ACQUIRE	1U
#define BATON_HELD_RELEASE	((1U << BATON_HELD_DEPTH_BITS) - 1)

/* baton_host_hints.ring: ring BATON_DOORBELL_RELEASE ... */
#define BATON_RING_DONATED	(1U << 0)	/* after releasing donated_lock */
#define BATON_RING_DEFER	(1U << 1)	/* after releasing the last lock */

/*
 * Written by the guest's vCPU. seq to holder_gen are one record, seq being odd
 * while it changes; the vCPU is stopped when the host reads it, so program
 * order (barrier()) is enough. held is outside the record: one plain store by
 * each lock and unlock of a spinlock. Mutexes do not count as held; releases of
 * those that waiters spin for count. A WAIT_BLOCK record counts while the vCPU
 * idles; its holder_gen is not looked at, and a sibling that takes the sleeper over
 * may store WAIT_NONE. A WAIT_IPI record's lock names the request; the holder counts
 * handling it as a release.
 */
struct baton_guest_hints {
	__u32 seq;
	__u32 wait_kind;
	__u64 lock;		/* any number that names the lock in this guest */
	__u32 holder;		/* vCPU that must run before this one can go on */
	__u32 holder_gen;	/* its releases when the waiter looked */
	__u32 held;
	__u32 reserved0;
	__u64 idle_until_tsc;	/* TSC at which an idle vCPU wakes, 0: never */
	__u64 reserved1[3];
} __attribute__((aligned(64)));

/* Written by the host while the vCPU is outside the guest (running: always). */
struct baton_host_hints {
	__u32 running;		/* 1 while this vCPU is on a host CPU */
	__u32 ring;
	__u64 donated_lock;
	__u64 steal_ns;	/* runnable, not running, since registration */
	__u32 preemptions;
	__u32 donor;		/* vCPU whose budget carries this one */
	__u64 reserved[4];
} __attribute__((aligned(64)));

/* The page; the rest of its 4 KiB is reserved, zero. */
struct baton_hint_page {
	struct baton_guest_hints guest;
	struct baton_host_hints host;
};

#endif /* BATON_HINTS_H */
