/* The verdict on one edge: tables only, no packet. */
#pragma once

#define DIRECTION_EGRESS 0
#define DIRECTION_INGRESS 1
#define VERDICT_ALLOW 1
#define VERDICT_DENY 2

#define IDENTITY_ANY 0
#define IDENTITY_NODE 1
#define IDENTITY_WORLD 2

struct verdict {
	__u32 reason;			/* REASON_OK: allowed */
	__u32 rule;
};

static inline void consider(struct policy_key *k, struct verdict *v, int *denied, int *allowed)
{
	struct rule *r = map_lookup(policy, k);
	if (!r)
		return;
	if (r->verdict == VERDICT_DENY && !*denied) {
		*denied = 1;
		v->rule = r->rule;
	} else if (r->verdict == VERDICT_ALLOW && !*allowed && !*denied) {
		*allowed = 1;
		v->rule = r->rule;
	}
}

/* Identity against identity. Named and unnamed peers and ports are all looked up: deny beats allow. */
static inline void judge_identity(__u32 local, __u32 epoch, __u32 remote, __u16 port, __u8 protocol,
				  __u8 direction, struct verdict *v)
{
	int denied = 0, allowed = 0;
	struct policy_key k = {};
	k.identity = local;
	k.epoch = epoch;
	k.remote = remote;
	k.port = port;
	k.protocol = protocol;
	k.direction = direction;
	consider(&k, v, &denied, &allowed);
	k.port = 0;
	consider(&k, v, &denied, &allowed);
	k.remote = IDENTITY_ANY;
	consider(&k, v, &denied, &allowed);
	k.port = port;
	consider(&k, v, &denied, &allowed);
	v->reason = denied ? REASON_DENIED : allowed ? REASON_OK : REASON_NO_RULE;
}

/* What no tenant opens; the value is a reason. */
static inline __u32 floor_of(const struct address *a)
{
	struct floor_key k = {};
	k.prefixlen = 128;
	k.address = *a;
	__u32 *reason = map_lookup(floor_prefixes, &k);
	return reason ? *reason : 0;
}

/* Egress to a network outside. The floor is judged first. */
static inline void judge_external(__u32 local, __u32 epoch, const struct address *to, __u16 port,
				  __u8 protocol, struct verdict *v)
{
	v->reason = floor_of(to);
	if (v->reason)
		return;
	struct external_key k = {};
	k.prefixlen = 96 + 128;
	k.identity = local;
	k.epoch = epoch;
	k.port = port;
	k.protocol = protocol;
	k.address = *to;
	struct rule *named = map_lookup(external, &k);
	k.port = 0;
	struct rule *any = map_lookup(external, &k);
	struct rule *r = named && named->verdict == VERDICT_DENY ? named : any && any->verdict == VERDICT_DENY ? any
			 : named ? named : any;
	if (!r) {
		v->reason = REASON_EGRESS;
		return;
	}
	v->rule = r->rule;
	v->reason = r->verdict == VERDICT_ALLOW ? REASON_OK : REASON_DENIED;
}
