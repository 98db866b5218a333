/* Addresses and the ranges they belong to. */
#pragma once

#define RANGE_OUTSIDE 0
#define RANGE_WORKLOADS 1
#define RANGE_SERVICES 2

static inline void from_v4(struct address *a, __u32 v4)
{
	a->w[0] = 0;
	a->w[1] = 0;
	a->w[2] = bpf_htonl(0xffff);
	a->w[3] = v4;
}

static inline int is_v4(const struct address *a)
{
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == bpf_htonl(0xffff);
}

static inline int same(const struct address *a, const struct address *b)
{
	/* Without branches: the verifier follows each one, in every turn of a loop. */
	return !((a->w[0] ^ b->w[0]) | (a->w[1] ^ b->w[1]) | (a->w[2] ^ b->w[2]) | (a->w[3] ^ b->w[3]));
}

static inline int range_of(const struct config *c, const struct address *a)
{
	if (is_v4(a)) {
		if ((a->w[3] & c->workloads4_mask) == c->workloads4)
			return RANGE_WORKLOADS;
		if ((a->w[3] & c->services4_mask) == c->services4)
			return RANGE_SERVICES;
		return RANGE_OUTSIDE;
	}
	if (a->w[0] == c->workloads6[0] && a->w[1] == c->workloads6[1])
		return RANGE_WORKLOADS;
	if (a->w[0] == c->services6[0] && a->w[1] == c->services6[1])
		return RANGE_SERVICES;
	return RANGE_OUTSIDE;
}

/* 127/8, 0.0.0.0/8, ::1, ::. To a socket they all mean its own namespace; on a wire they mean a lie. */
static inline int is_loopback(const struct address *a)
{
	if (is_v4(a)) {
		__u32 first = bpf_ntohl(a->w[3]) >> 24;
		return first == 127 || first == 0;
	}
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == 0 && (a->w[3] == 0 || a->w[3] == bpf_htonl(1));
}

/* Multicast and broadcast. */
static inline int is_multicast(const struct address *a)
{
	if (is_v4(a)) {
		__u32 v4 = bpf_ntohl(a->w[3]);
		return (v4 >> 28) == 0xe || v4 == 0xffffffff;
	}
	return (bpf_ntohl(a->w[0]) >> 24) == 0xff;
}

static inline int macs_differ(const __u8 *a, const __u8 *b)
{
	return a[0] != b[0] || a[1] != b[1] || a[2] != b[2] || a[3] != b[3] || a[4] != b[4] || a[5] != b[5];
}
