/* The CNI plugin that is chained behind a cluster's own: a cell's pod gets its network only if the node's
 * agent agrees; everybody else's is left as it is, whether there is an agent or not.
 *
 * It decides by the name of the pod's namespace alone (is_cell), asks the agent over a unix socket and
 * waits for it at most WAIT_MS. It never changes a network itself: the result of the plugins before it is
 * handed on byte by byte. What it can't understand is refused for cells, as is a silent agent: kubelet
 * tries again, and the pod waits.
 *
 * Input and output: the CNI specification, versions 0.3.1 to 1.0.0. No libraries beyond libc. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef WAIT_MS
#define WAIT_MS 20000			/* longer than an agent needs, shorter than kubelet gives a plugin */
#endif
#define FAREWELL_MS 2000		/* of a DEL, which nobody waits for: the agent sweeps */
#define LARGEST_CONFIG (512 * 1024)
#define LARGEST_ANSWER (16 * 1024)
#define DEEPEST 64

enum { INVALID_CONFIG = 7, TRY_AGAIN = 11 };

struct text {
	const char *at;
	size_t length;
};

static struct text version = { "\"0.3.1\"", 7 };

static int complain(int code, const char *format, ...)
{
	char words[1024];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(words, sizeof(words), format, arguments);
	va_end(arguments);
	printf("{\"cniVersion\":%.*s,\"code\":%d,\"msg\":\"%s\"}\n", (int)version.length, version.at, code, words);
	return 1;
}

/* JSON: only as much as is needed to find a member and to know that the rest is whole. */
static const char *space(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
		at++;
	return at;
}

static const char *string_end(const char *at, const char *end)
{
	if (at >= end || *at != '"')
		return NULL;
	for (at++; at < end; at++) {
		if ((unsigned char)*at < 0x20)
			return NULL;
		if (*at == '"')
			return at + 1;
		if (*at != '\\')
			continue;
		if (++at >= end)
			return NULL;
		if (*at == 'u') {
			for (int digit = 0; digit < 4; digit++)
				if (++at >= end || !strchr("0123456789abcdefABCDEF", *at) || !*at)
					return NULL;
		} else if (!*at || !strchr("\"\\/bfnrt", *at)) {
			return NULL;
		}
	}
	return NULL;
}

static const char *value_end(const char *at, const char *end, int depth);

/* An object or an array, with what `wanted` names in it if it is an object. */
static const char *members_end(const char *at, const char *end, int depth, const char *wanted, struct text *found)
{
	char close = *at == '{' ? '}' : ']';

	at = space(at + 1, end);
	if (at < end && *at == close)
		return at + 1;
	for (;;) {
		struct text name = { "", 0 };
		const char *start;

		if (close == '}') {
			const char *after = string_end(at, end);

			if (!after)
				return NULL;
			name = (struct text){ at + 1, (size_t)(after - at) - 2 };
			at = space(after, end);
			if (at >= end || *at != ':')
				return NULL;
			at = space(at + 1, end);
		}
		start = at;
		at = value_end(at, end, depth + 1);
		if (!at)
			return NULL;
		if (wanted && name.length == strlen(wanted) && !memcmp(name.at, wanted, name.length))
			*found = (struct text){ start, (size_t)(at - start) };
		at = space(at, end);
		if (at >= end)
			return NULL;
		if (*at == close)
			return at + 1;
		if (*at != ',')
			return NULL;
		at = space(at + 1, end);
	}
}

static const char *value_end(const char *at, const char *end, int depth)
{
	static const char *const words[] = { "true", "false", "null" };

	if (at >= end || depth > DEEPEST)
		return NULL;
	if (*at == '{' || *at == '[')
		return members_end(at, end, depth, NULL, NULL);
	if (*at == '"')
		return string_end(at, end);
	for (int word = 0; word < 3; word++) {
		size_t length = strlen(words[word]);

		if ((size_t)(end - at) >= length && !memcmp(at, words[word], length))
			return at + length;
	}
	const char *start = at;
	while (at < end && *at && strchr("+-.0123456789eE", *at))
		at++;
	return at > start ? at : NULL;
}

/* A member of a document that is one whole object: 1 if it is there, 0 if not, -1 if that isn't an object. */
static int member(struct text document, const char *name, struct text *found)
{
	const char *end = document.at + document.length;
	const char *at = space(document.at, end);

	*found = (struct text){ NULL, 0 };
	if (at >= end || *at != '{')
		return -1;
	at = members_end(at, end, 0, name, found);
	if (!at || space(at, end) != end)
		return -1;
	return found->at != NULL;
}

/* As dataplane/cni/names.py: cell-[1-9][0-9]{0,18}-[0-9a-f]{8} */
static int is_cell(const char *name, size_t length)
{
	const char *at = name, *end = name + length;
	size_t digits = 0;

	if (length < 5 || memcmp(at, "cell-", 5))
		return 0;
	at += 5;
	if (at >= end || *at < '1' || *at > '9')
		return 0;
	while (at < end && *at >= '0' && *at <= '9') {
		at++;
		digits++;
	}
	if (digits > 19 || at >= end || *at != '-')
		return 0;
	at++;
	if (end - at != 8)
		return 0;
	for (; at < end; at++)
		if (!((*at >= '0' && *at <= '9') || (*at >= 'a' && *at <= 'f')))
			return 0;
	return 1;
}

/* The value of K8S_POD_NAMESPACE in CNI_ARGS, `A=b;C=d`. A name that is there twice decides for a cell. */
static int of_a_cell(const char *arguments)
{
	static const char name[] = "K8S_POD_NAMESPACE=";
	int found = 0;

	while (*arguments) {
		size_t length = strcspn(arguments, ";");

		if (length >= sizeof(name) - 1 && !memcmp(arguments, name, sizeof(name) - 1))
			found |= is_cell(arguments + sizeof(name) - 1, length - (sizeof(name) - 1));
		arguments += length;
		if (*arguments)
			arguments++;
	}
	return found;
}

static long long now_ms(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1000LL + at.tv_nsec / 1000000;
}

static int ready(int descriptor, short events, long long until)
{
	struct pollfd wanted = { .fd = descriptor, .events = events };

	for (;;) {
		long long left = until - now_ms();
		int number;

		if (left <= 0)
			return 0;
		number = poll(&wanted, 1, (int)left);
		if (number > 0)
			return 1;
		if (number < 0 && errno != EINTR)
			return 0;
	}
}

static void quoted(FILE *out, const char *name, const char *value)
{
	fprintf(out, "\"%s\":\"", name);
	for (; *value; value++) {
		unsigned char c = (unsigned char)*value;

		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if (c < 0x20)
			fprintf(out, "\\u%04x", c);
		else
			fputc(c, out);
	}
	fputs("\",", out);
}

static const char *variable(const char *name)
{
	const char *value = getenv(name);

	return value ? value : "";
}

/* The agent's answer into `answer`; its length, or -1 with why in `why`. */
static ssize_t ask(struct text path, struct text config, long long until, char *answer, const char **why)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char *request = NULL;
	size_t length = 0, sent = 0, got = 0;
	ssize_t result = -1;
	FILE *out = open_memstream(&request, &length);
	int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*why = "the node's agent isn't there";
	if (!out || descriptor < 0 || path.length >= sizeof(address.sun_path))
		goto end;
	fputc('{', out);
	quoted(out, "command", variable("CNI_COMMAND"));
	quoted(out, "container", variable("CNI_CONTAINERID"));
	quoted(out, "netns", variable("CNI_NETNS"));
	quoted(out, "ifname", variable("CNI_IFNAME"));
	quoted(out, "args", variable("CNI_ARGS"));
	fprintf(out, "\"config\":%.*s}\n", (int)config.length, config.at);
	if (fclose(out)) {
		out = NULL;
		goto end;
	}
	out = NULL;
	memcpy(address.sun_path, path.at, path.length);
	/* A queue that is full is an agent that doesn't keep up. */
	while (connect(descriptor, (struct sockaddr *)&address, sizeof(address))) {
		if (errno != EAGAIN && errno != EINTR)
			goto end;
		if (now_ms() >= until)
			goto end;
		poll(NULL, 0, 50);
	}
	*why = "the node's agent doesn't answer";
	while (sent < length) {
		ssize_t number;

		if (!ready(descriptor, POLLOUT, until))
			goto end;
		number = send(descriptor, request + sent, length - sent, MSG_NOSIGNAL);
		if (number < 0 && errno != EAGAIN && errno != EINTR)
			goto end;
		sent += number > 0 ? (size_t)number : 0;
	}
	shutdown(descriptor, SHUT_WR);
	for (;;) {
		ssize_t number;

		if (!ready(descriptor, POLLIN, until))
			goto end;
		number = recv(descriptor, answer + got, LARGEST_ANSWER - got, 0);
		if (number < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (number < 0)
			goto end;
		if (number == 0)
			break;
		got += (size_t)number;
		if (got == LARGEST_ANSWER)
			break;
	}
	result = (ssize_t)got;
end:
	if (out)
		fclose(out);
	free(request);
	if (descriptor >= 0)
		close(descriptor);
	return result;
}

/* 0 if the agent agrees, else it was complained. */
static int agreed(struct text config)
{
	static char answer[LARGEST_ANSWER];
	struct text path, word, document = { answer, 0 };
	const char *why;
	ssize_t length;

	if (member(config, "socket", &path) != 1 || path.length < 4 || path.at[0] != '"' ||
	    memchr(path.at, '\\', path.length))
		return complain(INVALID_CONFIG, "cytoplane: its entry names no `socket`");
	path.at++;
	path.length -= 2;
	length = ask(path, config, now_ms() + WAIT_MS, answer, &why);
	if (length < 0)
		return complain(TRY_AGAIN, "cytoplane: %s, so the pod waits", why);
	document.length = (size_t)length;
	if (member(document, "allowed", &word) == 1 && word.length == 4 && !memcmp(word.at, "true", 4))
		return 0;
	if (member(document, "refused", &word) == 1 && word.at[0] == '"') {
		/* A string of JSON already. */
		printf("{\"cniVersion\":%.*s,\"code\":%d,\"msg\":%.*s}\n", (int)version.length, version.at, TRY_AGAIN,
		       (int)word.length, word.at);
		return 1;
	}
	return complain(TRY_AGAIN, "cytoplane: the node's agent gave no answer, so the pod waits");
}

static void farewell(struct text config)
{
	static char answer[LARGEST_ANSWER];
	struct text path;
	const char *why;

	if (member(config, "socket", &path) != 1 || path.length < 4 || path.at[0] != '"')
		return;
	path.at++;
	path.length -= 2;
	ask(path, config, now_ms() + FAREWELL_MS, answer, &why);
}

static struct text read_config(void)
{
	static char held[LARGEST_CONFIG];
	size_t length = fread(held, 1, sizeof(held), stdin);

	return (struct text){ held, length };
}

/* Only digits and points: it is printed as it is. */
static void take_version(struct text config)
{
	struct text found;

	if (member(config, "cniVersion", &found) != 1 || found.length < 3 || found.length > 16 || found.at[0] != '"')
		return;
	for (size_t at = 1; at + 1 < found.length; at++)
		if (!memchr("0123456789.", found.at[at], 11))
			return;
	version = found;
}

static int add(struct text config, int cell)
{
	struct text before;

	if (member(config, "prevResult", &before) != 1 || before.at[0] != '{')
		return complain(INVALID_CONFIG, "cytoplane: it must be the last of a chain of plugins");
	if (cell && agreed(config))
		return 1;
	printf("%.*s\n", (int)before.length, before.at);
	return 0;
}

int main(int number, char **words)
{
	const char *command = variable("CNI_COMMAND");
	struct text config, any;
	int cell, outcome = 0;

	signal(SIGPIPE, SIG_IGN);
	if (number == 3 && !strcmp(words[1], "decide")) {
		puts(is_cell(words[2], strlen(words[2])) ? "cell" : "other");
		return 0;
	}
	config = read_config();
	take_version(config);
	if (!strcmp(command, "VERSION")) {
		printf("{\"cniVersion\":%.*s,\"supportedVersions\":[\"0.3.1\",\"0.4.0\",\"1.0.0\"]}\n",
		       (int)version.length, version.at);
		return 0;
	}
	cell = of_a_cell(variable("CNI_ARGS"));
	if (!strcmp(command, "DEL")) {
		if (cell)
			farewell(config);
		return 0;
	}
	if (member(config, "type", &any) < 0)
		return complain(INVALID_CONFIG, "cytoplane: its configuration isn't JSON");
	if (!strcmp(command, "ADD"))
		outcome = add(config, cell);
	else if (!strcmp(command, "CHECK"))
		outcome = cell ? agreed(config) : 0;
	else
		outcome = complain(4, "cytoplane: CNI_COMMAND is none of ADD, DEL, CHECK, VERSION");
	if (fflush(stdout))
		return 1;
	return outcome;
}
