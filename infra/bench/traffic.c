/* The traffic of the measurements: a server that costs next to nothing, and three clients.
 *
 *   traffic serve PORT
 *   traffic rr|crr|stream ADDRESS PORT SECONDS
 *
 * rr: one byte and its answer on one connection, again and again. crr: the same with a connection for
 * each. stream: as many bytes as fit. Clients print one number: transactions or MiB a second. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 18];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* What a client's first byte asks for: a page, an answer of a byte, or nothing at all. */
static void answer(int client, ssize_t size)
{
	static char page[700];
	if (!page[0]) {
		int head = snprintf(page, sizeof page,
				    "HTTP/1.1 200 OK\r\nContent-Length: 500\r\nConnection: close\r\n\r\n");
		memset(page + head, 'x', 500);
	}
	if (size > 0 && buffer[0] == 'R') {
		if (write(client, "r", 1) == 1)
			return;
	} else if (size > 0 && buffer[0] != 'G') {
		return;
	} else if (size > 0 && write(client, page, strlen(page)) < 0) {
		;
	}
	close(client);
}

static _Noreturn void serve(int port)
{
	struct sockaddr_in6 own = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int one = 1, zero = 0;
	int server = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(server, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(server, (struct sockaddr *)&own, sizeof own) || listen(server, 4096))
		fail("listen");
	int poll = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN, .data.fd = server }, events[64];
	epoll_ctl(poll, EPOLL_CTL_ADD, server, &event);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int count = epoll_wait(poll, events, 64, -1);
		for (int i = 0; i < count; i++) {
			int at = events[i].data.fd;
			if (at == server) {
				int client;
				while ((client = accept4(server, 0, 0, SOCK_NONBLOCK)) >= 0) {
					setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
					event.events = EPOLLIN;
					event.data.fd = client;
					epoll_ctl(poll, EPOLL_CTL_ADD, client, &event);
				}
				continue;
			}
			ssize_t size = read(at, buffer, sizeof buffer);
			if (size < 0 && errno == EAGAIN)
				continue;
			answer(at, size);
		}
	}
}

static int dial(const char *address, int port)
{
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int one = 1, is_six = strchr(address, ':') != 0;
	if (inet_pton(is_six ? AF_INET6 : AF_INET, address, is_six ? (void *)&six.sin6_addr : (void *)&four.sin_addr) != 1)
		fail(address);
	int client = socket(is_six ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
	if (connect(client, is_six ? (void *)&six : (void *)&four, is_six ? sizeof six : sizeof four))
		fail("connect");
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return client;
}

static void exchange(int client)
{
	char byte;
	if (write(client, "R", 1) != 1 || read(client, &byte, 1) != 1)
		fail("exchange");
}

int main(int count, char **words)
{
	if (count == 3 && !strcmp(words[1], "serve"))
		serve(atoi(words[2]));
	if (count != 5) {
		fputs("traffic serve PORT | rr|crr|stream ADDRESS PORT SECONDS\n", stderr);
		return 2;
	}
	int port = atoi(words[3]);
	double begun = now(), end = begun + atof(words[4]), done = 0;
	if (!strcmp(words[1], "crr")) {
		for (; now() < end; done++) {
			int client = dial(words[2], port);
			exchange(client);
			close(client);
		}
	} else {
		int client = dial(words[2], port);
		for (; now() < end;) {
			if (!strcmp(words[1], "rr")) {
				exchange(client);
				done++;
				continue;
			}
			ssize_t size = write(client, buffer, sizeof buffer);
			if (size < 0)
				fail("write");
			done += size / 1048576.0;
		}
	}
	printf("%.1f\n", done / (now() - begun));
	return 0;
}
