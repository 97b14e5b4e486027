// SPDX-License-Identifier: GPL-2.0
/*
 * Lock throughput and waits: one thread per CPU takes the same lock, works,
 * gives it back and works outside, for some time.
 *
 *	insmod lockbench.ko kind=spin seconds=2 hold_ns=2000 outside_ns=2000
 *
 * kind: spin, mutex, rwsem (writers), rwsem-mixed (one acquisition in
 * eight writes, the others read) or rtmutex. Prints one line:
 *
 *	bench: KIND done N in_ns T max_wait_ns W least A most B
 *
 * N acquisitions in T; W is the longest wait, A and B the acquisitions of the
 * threads that had fewest and most.
 *
 * A wait begins when the lock has been found taken. With the clock read before
 * each acquisition, a CPU that a hypervisor preempts between the two would
 * count as waiting for a lock that it has not asked for, maybe one that nobody
 * holds. So each acquisition first tries the lock, which is what locking it
 * begins with anyway, and reads the clock only after that has failed.
 *
 * Times are those of the TSC: a paravirt clock stands still on a CPU until it
 * has caught up with the clock of another one.
 */
#include <linux/completion.h>
#include <linux/cpu.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rtmutex.h>
#include <linux/rwsem.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <asm/msr.h>
#include <asm/tsc.h>

static char *kind = "spin";
module_param(kind, charp, 0444);
static uint seconds = 2;
module_param(seconds, uint, 0444);
/* Iterations of a loop, measured at the start: time stolen must not count. */
static uint hold_ns = 2000;
module_param(hold_ns, uint, 0444);
static uint outside_ns = 2000;
module_param(outside_ns, uint, 0444);

static DEFINE_SPINLOCK(spin);
static DEFINE_MUTEX(mutex);
static DECLARE_RWSEM(rwsem);
static DEFINE_RT_MUTEX(rtmutex);

struct thread {
	struct task_struct	*task;
	u64			acquisitions;
	u64			max_wait;	/* cycles */
	struct completion	done;
};

static bool stop;
static atomic_t ready = ATOMIC_INIT(0);
static bool go;
static unsigned long loops_per_us;

static noinline void work(unsigned long loops)
{
	while (loops--)
		barrier();
}

static unsigned long loops_of(uint ns)
{
	return loops_per_us * ns / 1000;
}

static u64 ns_of(u64 cycles)
{
	return cycles * 1000000 / tsc_khz;
}

#define SAMPLES	51
#define LOOPS	20000

/*
 * The shortest sample: others are longer because something else ran, and none
 * can be too short.
 */
static void calibrate(void)
{
	u64 shortest = U64_MAX;
	int i;

	for (i = 0; i < SAMPLES; i++) {
		u64 from;

		/* CPUs' TSCs may differ. */
		preempt_disable();
		from = rdtsc_ordered();
		work(LOOPS);
		shortest = min(shortest, rdtsc_ordered() - from);
		preempt_enable();
		cond_resched();
	}
	loops_per_us = max(1ULL, LOOPS * 1000ULL / max(1ULL, ns_of(shortest)));
}

/* Of rwsem-mixed, one acquisition in so many is a writer's. */
#define WRITES_ONE_IN	8

enum lock_kind { SPIN, MUTEX, RWSEM, RWSEM_MIXED, RTMUTEX };
static const char * const kinds[] = {
	[SPIN] = "spin", [MUTEX] = "mutex", [RWSEM] = "rwsem",
	[RWSEM_MIXED] = "rwsem-mixed", [RTMUTEX] = "rtmutex",
};
static enum lock_kind lock_kind;

static void lock(bool reads)
{
	switch (lock_kind) {
	case SPIN:
		return spin_lock(&spin);
	case MUTEX:
		return mutex_lock(&mutex);
	case RWSEM:
	case RWSEM_MIXED:
		return reads ? down_read(&rwsem) : down_write(&rwsem);
	case RTMUTEX:
		return rt_mutex_lock(&rtmutex);
	}
}

static bool trylock(bool reads)
{
	switch (lock_kind) {
	case SPIN:
		return spin_trylock(&spin);
	case MUTEX:
		return mutex_trylock(&mutex);
	case RWSEM:
	case RWSEM_MIXED:
		return reads ? down_read_trylock(&rwsem) :
			       down_write_trylock(&rwsem);
	case RTMUTEX:
		return rt_mutex_trylock(&rtmutex);
	}
	return false;
}

/* Locks, and returns the cycles of the wait. */
static u64 timed_lock(bool reads)
{
	u64 from;

	if (trylock(reads))
		return 0;
	from = rdtsc_ordered();
	lock(reads);
	return rdtsc_ordered() - from;
}

static void unlock(bool reads)
{
	switch (lock_kind) {
	case SPIN:
		return spin_unlock(&spin);
	case MUTEX:
		return mutex_unlock(&mutex);
	case RWSEM:
	case RWSEM_MIXED:
		return reads ? up_read(&rwsem) : up_write(&rwsem);
	case RTMUTEX:
		return rt_mutex_unlock(&rtmutex);
	}
}

static int run(void *arg)
{
	unsigned long hold = loops_of(hold_ns), outside = loops_of(outside_ns);
	struct thread *me = arg;

	atomic_inc(&ready);
	while (!READ_ONCE(go))
		cond_resched();
	while (!READ_ONCE(stop)) {
		bool reads = lock_kind == RWSEM_MIXED &&
			     me->acquisitions % WRITES_ONE_IN;

		me->max_wait = max(me->max_wait, timed_lock(reads));
		work(hold);
		unlock(reads);
		me->acquisitions++;
		work(outside);
		cond_resched();
	}
	/* The module may be gone before this thread is. */
	kthread_complete_and_exit(&me->done, 0);
}

static int __init lockbench_init(void)
{
	u64 sum = 0, worst = 0, least = U64_MAX, most = 0, took;
	struct thread *threads;
	int cpu, made = 0;

	while (strcmp(kind, kinds[lock_kind]))
		if (++lock_kind == ARRAY_SIZE(kinds))
			return -EINVAL;
	threads = kcalloc(nr_cpu_ids, sizeof(*threads), GFP_KERNEL);
	if (!threads)
		return -ENOMEM;
	calibrate();
	cpus_read_lock();
	for_each_online_cpu(cpu) {
		struct thread *thread = &threads[made];

		init_completion(&thread->done);
		thread->task = kthread_create_on_cpu(run, thread, cpu,
						     "lockbench/%u");
		if (IS_ERR(thread->task))
			break;
		made++;
		wake_up_process(thread->task);
	}
	cpus_read_unlock();
	while (atomic_read(&ready) < made)
		schedule_timeout_uninterruptible(1);
	took = ktime_get_ns();
	WRITE_ONCE(go, true);
	schedule_timeout_uninterruptible(seconds * HZ);
	WRITE_ONCE(stop, true);
	took = ktime_get_ns() - took;
	for (cpu = 0; cpu < made; cpu++) {
		struct thread *thread = &threads[cpu];

		wait_for_completion(&thread->done);
		sum += thread->acquisitions;
		worst = max(worst, thread->max_wait);
		least = min(least, thread->acquisitions);
		most = max(most, thread->acquisitions);
	}
	pr_info("bench: %s done %llu in_ns %llu max_wait_ns %llu least %llu most %llu\n",
		kind, sum, took, ns_of(worst), least, most);
	kfree(threads);
	return 0;
}
module_init(lockbench_init);

/* The threads are gone already. */
static void __exit lockbench_exit(void)
{
}
module_exit(lockbench_exit);

MODULE_DESCRIPTION("Lock throughput and waits");
MODULE_LICENSE("GPL");
