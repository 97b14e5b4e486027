// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT
/*
 * Unmaps of shared memory: one thread on each CPU maps memory, writes it and
 * unmaps it, for some time. All threads belong to one process, so each unmap
 * has the other CPUs flush their TLBs and waits for their answers.
 *
 *	munmaptest SECONDS
 *
 * Prints one line:
 *
 *	bench: munmap done N in_ns T max_wait_ns W least A most B
 *
 * N unmaps in T; W is the longest unmap, A and B the unmaps of the threads that
 * had fewest and most.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096

struct thread {
	pthread_t	id;
	int		cpu;
	uint64_t	unmaps;
	uint64_t	max_wait;
	bool		failed;
};

static atomic_int ready;
static atomic_bool go, stop;

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* Maps memory, writes it, and unmaps it; the time that the unmap took, or 0. */
static uint64_t unmap(void)
{
	uint64_t from, took;
	volatile char *memory;

	memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 0;
	*memory = 1;
	from = now();
	if (munmap((void *)memory, PAGE))
		return 0;
	took = now() - from;
	return took ? took : 1;
}

static void *run(void *arg)
{
	struct thread *me = arg;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(me->cpu, &cpus);
	me->failed = sched_setaffinity(0, sizeof(cpus), &cpus) != 0;
	atomic_fetch_add(&ready, 1);
	while (!atomic_load(&go))
		sched_yield();
	while (!me->failed && !atomic_load(&stop)) {
		uint64_t took = unmap();

		me->failed = !took;
		me->unmaps++;
		if (took > me->max_wait)
			me->max_wait = took;
	}
	return NULL;
}

static void report(struct thread *threads, int made, uint64_t took)
{
	uint64_t sum = 0, worst = 0, least = UINT64_MAX, most = 0;

	for (int i = 0; i < made; i++) {
		struct thread *thread = &threads[i];

		pthread_join(thread->id, NULL);
		if (thread->failed) {
			fprintf(stderr, "munmaptest: the thread on CPU %d failed\n",
				thread->cpu);
			exit(1);
		}
		sum += thread->unmaps;
		if (thread->max_wait > worst)
			worst = thread->max_wait;
		if (thread->unmaps < least)
			least = thread->unmaps;
		if (thread->unmaps > most)
			most = thread->unmaps;
	}
	printf("bench: munmap done %llu in_ns %llu max_wait_ns %llu least %llu most %llu\n",
	       (unsigned long long)sum, (unsigned long long)took,
	       (unsigned long long)worst, (unsigned long long)least,
	       (unsigned long long)most);
}

int main(int argc, char **argv)
{
	int cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int seconds = argc > 1 ? atoi(argv[1]) : 2;
	struct thread *threads = calloc(cpus, sizeof(*threads));
	uint64_t from;

	if (!threads || seconds < 1)
		return 2;
	for (int cpu = 0; cpu < cpus; cpu++) {
		threads[cpu].cpu = cpu;
		if (pthread_create(&threads[cpu].id, NULL, run, &threads[cpu]))
			return 1;
	}
	while (atomic_load(&ready) < cpus)
		sched_yield();
	from = now();
	atomic_store(&go, true);
	sleep(seconds);
	atomic_store(&stop, true);
	report(threads, cpus, now() - from);
	return 0;
}
