/* Service addresses at the socket. */
#pragma once

#define STEER_NONE 0
#define STEER_MOVED 1
#define STEER_REFUSED 2

#define EPERM_ 1
#define ECONNREFUSED_ 111

static inline struct caller *caller_of(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	return map_lookup(callers, &cookie);
}

/* Remember a translation in the socket itself: an LRU could forget it while the socket lives. A socket
 * has one for each service address and set of backends, so that late replies are known too; the one
 * that was used longest ago makes room. */
static inline void note(struct bpf_sock_addr *ctx, const struct address *service, __u16 service_port,
			const struct address *backend, __u16 backend_port, __u32 set)
{
	if (!ctx->sk)
		return;
	struct translations *t = storage_get(translated, ctx->sk, BPF_SK_STORAGE_GET_F_CREATE);
	if (!t) {
		count(COUNT_STORAGE_FAILED);
		return;
	}
	struct translation *s = &t->slot[0];
	int i;
#pragma unroll
	for (i = 0; i < TRANSLATIONS; i++) {
		struct translation *known = &t->slot[i];
		if (known->set == set && known->service_port == service_port && same(&known->service, service)) {
			s = known;
			break;
		}
		if (known->used < s->used)
			s = known;
	}
	s->service = *service;
	s->backend = *backend;
	s->service_port = service_port;
	s->backend_port = backend_port;
	s->set = set;
	s->used = ++t->calls;
}

/* What a datagram socket chose before: it stays there as long as the set is the same. */
static inline int chosen_before(struct bpf_sock_addr *ctx, struct address *to, __u16 *port, __u32 set)
{
	if (!ctx->sk)
		return 0;
	struct translations *t = storage_get(translated, ctx->sk, 0);
	if (!t)
		return 0;
	int i;
#pragma unroll
	for (i = 0; i < TRANSLATIONS; i++) {
		struct translation *s = &t->slot[i];
		if (s->set == set && s->service_port == *port && same(&s->service, to)) {
			*to = s->backend;
			*port = s->backend_port;
			s->used = ++t->calls;
			return 1;
		}
	}
	return 0;
}

/* What the application asked for when it hears from a backend; of several services that one it called last. */
static inline int find_service(struct bpf_sock_addr *ctx, const struct address *from, __u16 *port,
			       struct address *service)
{
	if (!ctx->sk)
		return 0;
	struct translations *t = storage_get(translated, ctx->sk, 0);
	if (!t)
		return 0;
	__u32 latest = 0;
	__u16 backend_port = *port;
	int i;
#pragma unroll
	for (i = 0; i < TRANSLATIONS; i++) {
		struct translation *s = &t->slot[i];
		if (s->used > latest && s->backend_port == backend_port && same(&s->backend, from)) {
			latest = s->used;
			*service = s->service;
			*port = s->service_port;
		}
	}
	return latest != 0;
}

static inline int refuse_call(struct caller *me, __u32 remote, const struct address *to, __u16 port, __u8 protocol,
			      struct verdict *v)
{
	record(me->identity, remote, to, port, protocol, DIRECTION_EGRESS, v, 0);
	/* TCP clients understand a refusal; for datagrams there is no such answer but EPERM. */
	bpf_set_retval(protocol == IPPROTO_TCP ? -ECONNREFUSED_ : -EPERM_);
	return STEER_REFUSED;
}

static inline __u32 mix(__u64 cookie)
{
	cookie ^= cookie >> 33;
	cookie *= 0xff51afd7ed558ccdULL;
	cookie ^= cookie >> 33;
	return (__u32)cookie;
}

/* A backend of the service, in place of `to` and `port`. 0: it has none. */
static inline int choose(struct service *s, const struct service_key *k, __u64 cookie, struct address *to,
			 __u16 *port)
{
	struct affinity_key a = {};
	struct affinity *stay = 0;
	__u64 now = 0;
	if (s->affinity) {
		now = bpf_ktime_get_ns();
		a.cookie = cookie;
		a.service = *k;
		stay = map_lookup(affinity, &a);
		if (stay && now - stay->last < s->affinity * SECOND) {
			struct member_key m = {};
			m.service = s->id;
			m.port = stay->port;
			m.address = stay->address;
			if (map_lookup(members, &m)) {
				stay->last = now;
				*to = m.address;
				*port = m.port;
				return 1;
			}
		}
	}
	struct backend_key b = {};
	b.service = s->id;
	b.slot = (s->consistent ? mix(cookie) : bpf_get_prandom_u32()) % s->count;
	struct backend *chosen = map_lookup(backends, &b);
	if (!chosen) {
		count(COUNT_BACKEND_MISSING);
		return 0;
	}
	*to = chosen->address;
	*port = chosen->port;
	if (s->affinity) {
		struct affinity fresh = {};
		fresh.last = now;
		fresh.address = *to;
		fresh.port = *port;
		map_update(affinity, &a, &fresh);
	}
	return 1;
}

/* Where a call goes: translated in place, left alone, or refused.
 *
 * Connecting a datagram socket sends nothing: resolvers do it to learn their own address. It is never
 * refused or recorded; what is sent afterwards is judged on the wire. A datagram to a plain address may
 * be a server's answer, which only the wire knows: it isn't judged here either. */
static inline int steer(struct bpf_sock_addr *ctx, struct caller *me, struct address *to, __u16 *port,
			int connecting)
{
	__u32 zero = 0, moved = 0;
	__u8 protocol = ctx->protocol;
	int silent = connecting && protocol == IPPROTO_UDP;
	struct verdict v = {};
	struct config *c = map_lookup(config, &zero);
	if (!c) {
		count(COUNT_CONFIG_MISSING);
		return STEER_NONE;	/* tc drops it */
	}
	if (is_loopback(to))
		return STEER_NONE;	/* its own namespace */
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return STEER_NONE;
	int range = range_of(c, to);
	if (range == RANGE_SERVICES && me->flags & CALLER_UNTRANSLATED)
		return STEER_NONE;	/* tc drops it and says so */
	if (range == RANGE_SERVICES) {
		struct address asked = *to;
		__u16 asked_port = *port;
		struct service_key k = {};
		k.consumer = me->identity;
		k.address = asked;
		k.port = asked_port;
		k.protocol = protocol;
		struct service *s = map_lookup(services, &k);
		if (!s) {
			k.consumer = 0;
			s = map_lookup(services, &k);
		}
		if (!s || !s->count) {
			if (silent)
				return STEER_NONE;
			v.reason = s ? REASON_NO_BACKEND : REASON_NO_SERVICE;
			return refuse_call(me, 0, &asked, asked_port, protocol, &v);
		}
		if (connecting || !chosen_before(ctx, to, port, s->id)) {
			if (!choose(s, &k, bpf_get_netns_cookie(ctx), to, port)) {
				v.reason = REASON_NO_BACKEND;
				return refuse_call(me, 0, &asked, asked_port, protocol, &v);
			}
			note(ctx, &asked, asked_port, to, *port, s->id);
		}
		moved = 1;
		range = RANGE_WORKLOADS;
	}
	/* Refuse now what tc would drop. */
	struct identity *i = map_lookup(identities, &me->identity);
	if (!i)
		return moved ? STEER_MOVED : STEER_NONE;
	__u32 remote = IDENTITY_WORLD;
	struct owner *o = map_lookup(ipcache, to);
	if (o || range == RANGE_WORKLOADS) {
		remote = o ? o->identity : 0;
		if (!o)
			v.reason = REASON_UNKNOWN_DESTINATION;
		else if (o->ifindex && o->ifindex == me->ifindex)
			;	/* itself: never leaves the namespace */
		else
			judge_identity(me->identity, i->epoch, remote, *port, protocol, DIRECTION_EGRESS, &v);
		if (!v.reason && connecting && protocol == IPPROTO_TCP && (!o || o->ifindex != me->ifindex))
			v.reason = connections_left(me->identity);
	} else if (is_multicast(to)) {
		v.reason = REASON_MULTICAST;
	} else {
		judge_external(me->identity, i, to, *port, protocol, &v);
		if (v.reason == REASON_NODE)
			remote = IDENTITY_NODE;
		if (!v.reason && connecting && protocol == IPPROTO_TCP)
			v.reason = connections_left(me->identity);
	}
	if (v.reason && !silent && (moved || protocol == IPPROTO_TCP))
		return refuse_call(me, remote, to, *port, protocol, &v);
	return moved ? STEER_MOVED : STEER_NONE;
}
