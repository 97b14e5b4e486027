/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT */
/*
 * A mutex whose futex word is its owner's TID, and that tells the kernel so.
 *
 * A thread that sleeps for it names the owner by FUTEX2_OWNER. In a guest of
 * Baton whose kernel has the patches, the owner can then run on the time of the
 * CPU that went idle. Elsewhere it is a mutex like others.
 *
 * Only for the threads of one process; no timeouts, not recursive. Zeroed memory
 * is a free mutex.
 */
#ifndef BATON_MUTEX_H
#define BATON_MUTEX_H

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_futex_wait
#define SYS_futex_wait	455
#endif
#ifndef FUTEX2_PRIVATE
#define FUTEX2_SIZE_U32	0x02
#define FUTEX2_PRIVATE	FUTEX_PRIVATE_FLAG
#endif
#ifndef FUTEX2_OWNER
#define FUTEX2_OWNER	0x40
#endif

struct baton_mutex {
	/* 0: free; else the owner's TID, and FUTEX_WAITERS if some may sleep. */
	_Atomic uint32_t word;
};

/* Whether this kernel takes FUTEX2_OWNER; assumed until it says no. */
static _Atomic bool baton_mutex_tells = true;

static inline uint32_t baton_mutex_tid(void)
{
	static _Thread_local uint32_t tid;

	if (!tid)
		tid = syscall(SYS_gettid);
	return tid;
}

/* Sleeps while the word is @value; may wake for no reason. */
static inline void baton_mutex_sleep(struct baton_mutex *mutex, uint32_t value)
{
	if (atomic_load_explicit(&baton_mutex_tells, memory_order_relaxed)) {
		if (!syscall(SYS_futex_wait, &mutex->word, (unsigned long)value,
			     (unsigned long)FUTEX_BITSET_MATCH_ANY,
			     FUTEX2_SIZE_U32 | FUTEX2_PRIVATE | FUTEX2_OWNER,
			     NULL, 0))
			return;
		if (errno != EINVAL && errno != ENOSYS)
			return;
		atomic_store_explicit(&baton_mutex_tells, false,
				      memory_order_relaxed);
	}
	syscall(SYS_futex, &mutex->word, FUTEX_WAIT_PRIVATE, value, NULL);
}

static inline void baton_mutex_lock(struct baton_mutex *mutex)
{
	uint32_t me = baton_mutex_tid(), old = 0;

	if (atomic_compare_exchange_strong(&mutex->word, &old, me))
		return;
	for (;;) {
		/* Others may sleep besides, so the one that slept says so. */
		if (!old) {
			if (atomic_compare_exchange_strong(&mutex->word, &old,
							   me | FUTEX_WAITERS))
				return;
		} else if ((old & FUTEX_WAITERS) ||
			   atomic_compare_exchange_strong(&mutex->word, &old,
							  old | FUTEX_WAITERS)) {
			baton_mutex_sleep(mutex, old | FUTEX_WAITERS);
			old = atomic_load(&mutex->word);
		}
	}
}

static inline void baton_mutex_unlock(struct baton_mutex *mutex)
{
	if (atomic_exchange(&mutex->word, 0) & FUTEX_WAITERS)
		syscall(SYS_futex, &mutex->word, FUTEX_WAKE_PRIVATE, 1);
}

#endif /* BATON_MUTEX_H */
