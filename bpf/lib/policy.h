/* The verdict on one edge: tables only, no packet. */
#pragma once

#define SECOND 1000000000ULL

#define DIRECTION_EGRESS 0
#define DIRECTION_INGRESS 1
#define VERDICT_ALLOW 1
#define VERDICT_DENY 2
#define VERDICT_AUDIT 3			/* passes, and is reported as what would have been refused */

#define IDENTITY_ANY 0
#define IDENTITY_NODE 1
#define IDENTITY_WORLD 2

struct verdict {
	__u32 reason;			/* REASON_OK: passes */
	__u32 rule;
	__u32 audit;			/* where it passes for the record only: the reason to refuse it */
	__u32 learned;			/* by an address behind a name */
};

/* What the entries that were found say, and the rule of the first that says so. */
#define VOTE(verdict) (1 << (verdict))
struct votes {
	__u32 seen;
	__u32 rule[4];			/* by verdict */
};

static inline void consider(const struct rule *r, struct votes *found)
{
	if (!r)
		return;
	__u32 verdict = r->verdict & 3;
	if (verdict == VERDICT_DENY && !(found->seen & VOTE(VERDICT_DENY)))
		found->rule[VERDICT_DENY] = r->rule;
	else if (verdict == VERDICT_ALLOW && !(found->seen & VOTE(VERDICT_ALLOW)))
		found->rule[VERDICT_ALLOW] = r->rule;
	else if (verdict == VERDICT_AUDIT && !(found->seen & VOTE(VERDICT_AUDIT)))
		found->rule[VERDICT_AUDIT] = r->rule;
	found->seen |= VOTE(verdict);
}

/* Deny beats allow, allow beats audit; `otherwise` is the reason where nobody spoke. */
static inline void settle(const struct votes *found, __u32 otherwise, struct verdict *v)
{
	v->reason = REASON_OK;
	if (found->seen & VOTE(VERDICT_DENY)) {
		v->rule = found->rule[VERDICT_DENY];
		v->reason = REASON_DENIED;
	} else if (found->seen & VOTE(VERDICT_ALLOW)) {
		v->rule = found->rule[VERDICT_ALLOW];
	} else if (found->seen & VOTE(VERDICT_AUDIT)) {
		v->rule = found->rule[VERDICT_AUDIT];
		v->audit = otherwise;
	} else {
		v->reason = otherwise;
	}
}

/* Identity against identity. Named and unnamed peers and ports are all looked up. */
static inline void judge_identity(__u32 local, __u32 epoch, __u32 remote, __u16 port, __u8 protocol,
				  __u8 direction, struct verdict *v)
{
	struct votes found = {};
	struct policy_key k = {};
	k.identity = local;
	k.epoch = epoch;
	k.remote = remote;
	k.port = port;
	k.protocol = protocol;
	k.direction = direction;
	consider(map_lookup(policy, &k), &found);
	k.port = 0;
	consider(map_lookup(policy, &k), &found);
	k.remote = IDENTITY_ANY;
	consider(map_lookup(policy, &k), &found);
	k.port = port;
	consider(map_lookup(policy, &k), &found);
	settle(&found, REASON_NO_RULE, v);
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

/* Egress to a network outside. The floor is judged first, but for who stands above it. */
static inline void judge_external(__u32 local, const struct identity *i, const struct address *to, __u16 port,
				  __u8 protocol, struct verdict *v)
{
	if (!(i->flags & IDENTITY_ABOVE_FLOOR)) {
		v->reason = floor_of(to);
		if (v->reason)
			return;
	}
	struct votes found = {};
	struct external_key k = {};
	k.prefixlen = 96 + 128;
	k.identity = local;
	k.epoch = i->epoch;
	k.port = port;
	k.protocol = protocol | (is_v4(to) ? EXTERNAL_V4 : 0);
	k.address = *to;
	consider(map_lookup(external, &k), &found);
	k.port = 0;
	consider(map_lookup(external, &k), &found);
	if (!(found.seen & (VOTE(VERDICT_DENY) | VOTE(VERDICT_ALLOW))) && !(i->flags & IDENTITY_ABOVE_FLOOR)) {
		struct learned_key n = {};
		n.identity = local;
		n.port = port;
		n.protocol = protocol;
		n.address = *to;
		struct rule *r = map_lookup(learned, &n);
		if (r) {
			consider(r, &found);
			v->learned = 1;
		}
	}
	settle(&found, REASON_EGRESS, v);
	if (v->reason == REASON_EGRESS && i->flags & IDENTITY_ABOVE_FLOOR) {
		__u32 floored = floor_of(to);
		if (floored)
			v->reason = floored;
	}
}
