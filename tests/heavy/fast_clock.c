/* A clock that runs FAST_CLOCK times as fast for one program: cc -shared -fPIC -o fast_clock.so fast_clock.c, LD_PRELOAD it.
 *
 * An hour of a service's timers (status, retries, keepalive, a library's uploads) passes in minutes. Clocks are read fast,
 * and waits are as much shorter, so that one second of a wait is one second of the clock. What asks the kernel
 * by itself (alarm, timerfd) is not reached. FAST_CLOCK_START, in seconds of CLOCK_MONOTONIC, is when it began to run fast.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef long long ns;
#define SECOND 1000000000LL
#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); real; })

static ns factor, start;

__attribute__((constructor)) static void begin(void) {
  const char *given = getenv("FAST_CLOCK"), *since = getenv("FAST_CLOCK_START");
  factor = given ? atoll(given) : 1;
  start = since ? (ns)(atof(since) * 1e9) : 0;
}

static ns of(const struct timespec *t) { return t->tv_sec * SECOND + t->tv_nsec; }
static struct timespec to(ns t) { return (struct timespec){t / SECOND, t % SECOND}; }
static ns slower(ns t) { return t <= 0 || !factor ? t : (t + factor - 1) / factor; }

static ns read_real(clockid_t clock) {
  struct timespec t;
  syscall(SYS_clock_gettime, clock, &t);
  return of(&t);
}

static ns read_fast(clockid_t clock) {
  ns t = read_real(clock);
  int passes = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_MONOTONIC ||
               clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_BOOTTIME;
  return passes && factor > 1 ? t + (factor - 1) * (read_real(CLOCK_MONOTONIC) - start) : t;
}

/* The moment of the real clock at which the fast one shows `until`. */
static struct timespec moment(clockid_t clock, const struct timespec *until) {
  return to(read_real(clock) + slower(of(until) - read_fast(clock)));
}

/* Which clock a moment is of, where the call does not say: the one that is nearer. */
static clockid_t clock_of(const struct timespec *t) {
  return llabs(of(t) - read_fast(CLOCK_REALTIME)) < llabs(of(t) - read_fast(CLOCK_MONOTONIC)) ? CLOCK_REALTIME : CLOCK_MONOTONIC;
}

int clock_gettime(clockid_t clock, struct timespec *t) {
  if (syscall(SYS_clock_gettime, clock, t)) return -1;
  *t = to(read_fast(clock));
  return 0;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
  ns now = read_fast(CLOCK_REALTIME);
  *t = (struct timeval){now / SECOND, now % SECOND / 1000};
  return zone ? (errno = EINVAL, -1) : 0;
}

time_t time(time_t *t) {
  time_t now = read_fast(CLOCK_REALTIME) / SECOND;
  return t ? (*t = now) : now;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *t, struct timespec *left) {
  struct timespec shorter = flags & TIMER_ABSTIME ? moment(clock, t) : to(slower(of(t)));
  int failed = REAL(clock_nanosleep)(clock, flags, &shorter, left);
  if (failed == EINTR && left && !(flags & TIMER_ABSTIME)) *left = to(of(left) * factor);
  return failed;
}

int nanosleep(const struct timespec *t, struct timespec *left) {
  int failed = clock_nanosleep(CLOCK_REALTIME, 0, t, left);
  return failed ? (errno = failed, -1) : 0;
}

int usleep(useconds_t t) { struct timespec spec = to(t * 1000LL); return nanosleep(&spec, NULL); }
unsigned sleep(unsigned t) { struct timespec spec = {t, 0}; return nanosleep(&spec, &spec) ? spec.tv_sec + 1 : 0; }

int poll(struct pollfd *files, nfds_t count, int t) { return REAL(poll)(files, count, slower(t)); }

int ppoll(struct pollfd *files, nfds_t count, const struct timespec *t, const sigset_t *mask) {
  struct timespec shorter = t ? to(slower(of(t))) : to(0);
  return REAL(ppoll)(files, count, t ? &shorter : NULL, mask);
}

int select(int count, fd_set *in, fd_set *out, fd_set *odd, struct timeval *t) {
  struct timespec shorter = t ? to(slower(t->tv_sec * SECOND + t->tv_usec * 1000LL)) : to(0);
  return REAL(pselect)(count, in, out, odd, t ? &shorter : NULL, NULL);
}

int pselect(int count, fd_set *in, fd_set *out, fd_set *odd, const struct timespec *t, const sigset_t *mask) {
  struct timespec shorter = t ? to(slower(of(t))) : to(0);
  return REAL(pselect)(count, in, out, odd, t ? &shorter : NULL, mask);
}

int epoll_wait(int file, struct epoll_event *events, int most, int t) { return REAL(epoll_wait)(file, events, most, slower(t)); }

int epoll_pwait(int file, struct epoll_event *events, int most, int t, const sigset_t *mask) {
  return REAL(epoll_pwait)(file, events, most, slower(t), mask);
}

int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
  struct timespec real = moment(CLOCK_REALTIME, until);
  return REAL(sem_timedwait)(semaphore, &real);
}

int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *until) {
  struct timespec real = moment(clock, until);
  return REAL(sem_clockwait)(semaphore, clock, &real);
}

int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock, const struct timespec *until) {
  struct timespec real = moment(clock, until);
  return REAL(pthread_cond_clockwait)(condition, mutex, clock, &real);
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
  static __typeof__(&pthread_cond_timedwait) real;
  struct timespec shorter = moment(clock_of(until), until);
#if defined(__x86_64__)
  if (!real) real = (__typeof__(real))dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
#endif
  if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, "pthread_cond_timedwait");
  return real(condition, mutex, &shorter);
}
