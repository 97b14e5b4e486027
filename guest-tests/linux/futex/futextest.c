// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT
/*
 * One thread per CPU takes a baton_mutex, works, gives it back and works
 * outside, for some time:
 *
 *	futextest SECONDS HOLD_LOOPS OUTSIDE_LOOPS [quiet]
 *
 * With "quiet" the mutex does not name its owner. Prints one line:
 *
 *	futex: done N in_ns T max_wait_ns W least A most B owner KNOWN
 *
 * N acquisitions in T; W is the longest wait, A and B the acquisitions of the
 * threads that had fewest and most, KNOWN whether the kernel was told owners.
 * Fails if two threads were under the lock at once.
 */
#define _GNU_SOURCE
#include "baton_mutex.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct thread {
	pthread_t thread;
	int cpu;
	uint64_t acquisitions;
	uint64_t max_wait;
};

static struct baton_mutex mutex;
/* Under the mutex, and not atomic: two at once lose an increment. */
static volatile uint64_t total;
static volatile int inside;
static atomic_bool stop, broken;
static unsigned long hold, outside;

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static void work(unsigned long loops)
{
	while (loops--)
		__asm__ volatile("" ::: "memory");
}

static void *run(void *arg)
{
	struct thread *me = arg;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(me->cpu, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	while (!atomic_load(&stop)) {
		uint64_t from = now_ns(), waited, before;

		baton_mutex_lock(&mutex);
		waited = now_ns() - from;
		if (waited > me->max_wait)
			me->max_wait = waited;
		if (inside)
			atomic_store(&broken, true);
		inside = 1;
		before = total;
		work(hold);
		total = before + 1;
		inside = 0;
		baton_mutex_unlock(&mutex);
		me->acquisitions++;
		work(outside);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int cpus = sysconf(_SC_NPROCESSORS_ONLN), made = 0;
	uint64_t from, took, sum = 0, worst = 0, least = -1, most = 0;
	struct thread *threads = calloc(cpus, sizeof(*threads));
	bool quiet = argc > 4 && !strcmp(argv[4], "quiet");

	if (argc < 4 || !threads) {
		fprintf(stderr, "futextest SECONDS HOLD_LOOPS OUTSIDE_LOOPS [quiet]\n");
		return 2;
	}
	hold = strtoul(argv[2], NULL, 0);
	outside = strtoul(argv[3], NULL, 0);
	if (quiet)
		atomic_store(&baton_mutex_tells, false);
	from = now_ns();
	for (; made < cpus; made++) {
		threads[made].cpu = made;
		if (pthread_create(&threads[made].thread, NULL, run,
				   &threads[made]))
			break;
	}
	sleep(strtoul(argv[1], NULL, 0));
	atomic_store(&stop, true);
	took = now_ns() - from;
	for (int i = 0; i < made; i++) {
		struct thread *thread = &threads[i];

		pthread_join(thread->thread, NULL);
		sum += thread->acquisitions;
		worst = thread->max_wait > worst ? thread->max_wait : worst;
		least = thread->acquisitions < least ? thread->acquisitions : least;
		most = thread->acquisitions > most ? thread->acquisitions : most;
	}
	printf("futex: done %llu in_ns %llu max_wait_ns %llu least %llu most %llu owner %d\n",
	       (unsigned long long)sum, (unsigned long long)took,
	       (unsigned long long)worst, (unsigned long long)least,
	       (unsigned long long)most, atomic_load(&baton_mutex_tells));
	if (atomic_load(&broken) || total != sum || made < cpus) {
		printf("futex: %llu counted under the lock, %d of %d threads\n",
		       (unsigned long long)total, made, cpus);
		return 1;
	}
	return 0;
}
