/* The self-check of a cell's pod: its first init container, see docs/kubernetes.md.
 *
 * It asks the platform's resolver, which the pod's resolv.conf names, and sees whether the boundary is
 * there in both directions before anything of the tenant's runs:
 *   out, allowed   a question to the resolver leaves;
 *   in,  allowed   its answer comes back;
 *   out, denied    a datagram to a port of the node that nobody opened gets no answer. Were the boundary
 *                  missing, the node would say that the port is closed. A datagram, because the hooks refuse
 *                  connections with the same error before anything is sent: this one meets tc;
 *   in,  denied    before it is answered, the node sends a datagram to a port that asked nothing: it mustn't come.
 *                  Only the pod's own filter stands between.
 *
 * CYTOPLANE_NODE in its environment is the node's address; without it the resolver's host is tried.
 * Arguments: none in a pod; for trying it, the resolver's address and how many times it is asked.
 *
 * Exit codes: 0 the boundary is there, 1 it is open, 2 nothing answers (not ready: the pod is tried again).
 * One sentence on stdout, which Kubernetes shows as the container's termination message.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* "_check.cytoplane.internal", A, IN. */
static const unsigned char QUESTION[] =
	"\x06_check\x09"
	"cytoplane\x08internal\x00\x00\x01\x00\x01";

enum { HEADER = 12, DNS = 53, CLOSED = 54, TRIES = 40, EACH_MS = 500, QUIET_MS = 700, DENIED_MS = 700 };
enum { OK = 0, OPEN = 1, AWAY = 2 };

struct target {
	struct sockaddr_storage address;
	socklen_t size;
	char text[INET6_ADDRSTRLEN];
};

__attribute__((format(printf, 2, 3), noreturn)) static void end(int code, const char *format, ...)
{
	char line[400];
	va_list list;

	va_start(list, format);
	vsnprintf(line, sizeof(line), format, list);
	va_end(list);
	printf("%s\n", line);
	fflush(stdout);
	int message = open("/dev/termination-log", O_WRONLY | O_APPEND | O_CLOEXEC);
	if (message >= 0) {
		if (write(message, line, strlen(line)) < 0) {
			/* It is on stdout too. */
		}
		close(message);
	}
	exit(code);
}

static bool parse(const char *text, struct target *found)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&found->address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&found->address;

	memset(found, 0, sizeof(*found));
	snprintf(found->text, sizeof(found->text), "%s", text);
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		found->size = sizeof(*v4);
		return true;
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		found->size = sizeof(*v6);
		return true;
	}
	return false;
}

static void set_port(struct sockaddr_storage *address, int port)
{
	if (address->ss_family == AF_INET)
		((struct sockaddr_in *)address)->sin_port = htons(port);
	else
		((struct sockaddr_in6 *)address)->sin6_port = htons(port);
}

static int port_of(int fd)
{
	struct sockaddr_storage own;
	socklen_t size = sizeof(own);

	if (getsockname(fd, (struct sockaddr *)&own, &size) != 0)
		return -1;
	return ntohs(own.ss_family == AF_INET ? ((struct sockaddr_in *)&own)->sin_port
					      : ((struct sockaddr_in6 *)&own)->sin6_port);
}

static int udp(const struct target *to, int port)
{
	struct sockaddr_storage any;
	int fd = socket(to->address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	memset(&any, 0, sizeof(any));
	any.ss_family = to->address.ss_family;
	set_port(&any, port);
	if (bind(fd, (struct sockaddr *)&any, to->size) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Two sockets on neighbouring ports: the second is the one that never asks. */
static bool pair(const struct target *to, int *asks, int *silent)
{
	for (int tried = 0; tried < 50; tried++) {
		*asks = udp(to, 0);
		if (*asks < 0)
			return false;
		int port = port_of(*asks);
		*silent = port > 0 && port < 65535 ? udp(to, port + 1) : -1;
		if (*silent >= 0)
			return true;
		close(*asks);
	}
	return false;
}

static int milliseconds_since(const struct timespec *before)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int)((now.tv_sec - before->tv_sec) * 1000 + (now.tv_nsec - before->tv_nsec) / 1000000);
}

static bool readable(int fd, int milliseconds)
{
	struct pollfd one = {.fd = fd, .events = POLLIN};

	return poll(&one, 1, milliseconds) == 1 && (one.revents & POLLIN);
}

/* Ask until there is an answer. Whether the answer says that the uninvited packet was sent before it. */
static bool ask(const struct target *to, int fd, int tries, bool *promised)
{
	unsigned char packet[512], id[2];
	struct sockaddr_storage address = to->address;

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return false;
	memset(packet, 0, HEADER);
	memcpy(packet, id, sizeof(id));
	packet[2] = 1; /* recursion desired, as everybody asks */
	packet[5] = 1; /* one question */
	memcpy(packet + HEADER, QUESTION, sizeof(QUESTION) - 1);
	set_port(&address, DNS);
	for (int tried = 0; tried < tries; tried++) {
		if (sendto(fd, packet, HEADER + sizeof(QUESTION) - 1, 0, (struct sockaddr *)&address,
			   to->size) < 0) {
			nanosleep(&(struct timespec){.tv_nsec = EACH_MS * 1000000L}, NULL);
			continue;
		}
		if (!readable(fd, EACH_MS))
			continue;
		unsigned char answer[512];
		ssize_t size = recv(fd, answer, sizeof(answer), 0);
		if (size < HEADER || memcmp(answer, id, sizeof(id)) != 0)
			continue;
		/* No error and one address: the resolver knows the name, so it had the other packet sent. */
		*promised = (answer[3] & 15) == 0 && answer[7] == 1;
		return true;
	}
	return false;
}

/* What becomes of a datagram that nobody allowed: NULL if nothing does, else why the boundary is open. */
static const char *denied(const struct target *to)
{
	struct sockaddr_storage address = to->address;
	int fd = socket(to->address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const char *why = NULL;
	char byte = 0;

	if (fd < 0)
		return "can't be tried for want of a socket";
	set_port(&address, CLOSED);
	/* Without a route there is no way out either; everything else is tried more than once. */
	if (connect(fd, (struct sockaddr *)&address, to->size) == 0) {
		for (int tried = 0; why == NULL && tried < 3; tried++) {
			if (send(fd, &byte, 1, 0) < 0 && errno == ECONNREFUSED)
				why = "was answered: nobody is there";
			struct pollfd one = {.fd = fd, .events = POLLIN};
			if (why == NULL && poll(&one, 1, DENIED_MS / 3) == 1)
				why = recv(fd, &byte, 1, 0) >= 0 ? "was answered" : errno == ECONNREFUSED
					? "was answered: nobody is there"
					: NULL;
		}
	}
	close(fd);
	return why;
}

static bool nameserver(struct target *found)
{
	char line[256];
	FILE *file = fopen("/etc/resolv.conf", "re");

	if (file == NULL)
		return false;
	while (fgets(line, sizeof(line), file) != NULL) {
		char text[64];
		if (sscanf(line, "nameserver %63s", text) == 1 && parse(text, found)) {
			fclose(file);
			return true;
		}
	}
	fclose(file);
	return false;
}

int main(int count, char **arguments)
{
	struct target to;
	int asks, silent;
	bool promised = false;

	if (count > 1 ? !parse(arguments[1], &to) : !nameserver(&to))
		end(AWAY, "There is no resolver to check the boundary with: resolv.conf names none.");
	if (!pair(&to, &asks, &silent))
		end(AWAY, "There are no sockets to check the boundary with: %s.", strerror(errno));
	if (!ask(&to, asks, count > 2 ? atoi(arguments[2]) : TRIES, &promised))
		end(AWAY, "The resolver at %s doesn't answer: this node's agent or resolver isn't ready.", to.text);
	if (!promised)
		end(AWAY, "What answers at %s isn't the platform's resolver.", to.text);
	/* The uninvited packet is underway from here on: it is waited for while the other way is tried. */
	struct timespec promised_at;
	clock_gettime(CLOCK_MONOTONIC, &promised_at);
	struct target node;
	const char *name = getenv("CYTOPLANE_NODE");
	if (name == NULL || !parse(name, &node))
		node = to;
	const char *why = denied(&node);
	if (why != NULL)
		end(OPEN, "The boundary is open outwards: what was sent to %s port %d %s.", node.text, CLOSED, why);
	int rest = QUIET_MS - milliseconds_since(&promised_at);
	if (readable(silent, rest > 0 ? rest : 0))
		end(OPEN, "The boundary is open inwards: a packet came that nobody here asked for.");
	end(OK, "The boundary is there in both directions.");
}
