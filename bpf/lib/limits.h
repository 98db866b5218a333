/* What a component may use: bandwidth, new connections, open connections.
 *
 * A bucket is one time stamp: up to when it is used up. Two processors that write it at once may let a
 * packet too many pass; nobody's isolation hangs on it. */
#pragma once

static inline int take(__u64 *until, __u64 cost, __u64 burst, __u64 now)
{
	__u64 at = *until > now ? *until : now;
	if (at - now > burst)
		return 0;
	*until = at + cost;
	return 1;
}

/* A packet that policy lets pass. REASON_OK or the limit that it is above. */
static inline __u32 within_limits(__u32 identity, const struct identity *i, __u32 direction, __u32 opens, __u32 tcp,
				  __u32 bytes, __u64 now)
{
	if (!(i->flags & IDENTITY_LIMITED))
		return REASON_OK;
	struct limit *l = map_lookup(limits, &identity);
	if (!l)
		return REASON_OK;
	struct usage *u = map_lookup(usages, &identity);
	if (!u)
		return REASON_OK;
	direction &= 1;
	if (opens && tcp && l->connections) {
		/* One that goes out was counted when its socket connected. */
		__u64 others = u->connections - (direction == DIRECTION_EGRESS && u->connections ? 1 : 0);
		if (others >= l->connections)
			return REASON_CONNECTIONS;
	}
	if (opens && l->new_connections &&
	    !take(&u->new_connections[direction], SECOND / l->new_connections, SECOND, now))
		return REASON_RATE;
	if (l->bytes[direction] &&
	    !take(&u->bandwidth[direction], (__u64)bytes * SECOND / l->bytes[direction], l->burst[direction], now))
		return REASON_BANDWIDTH;
	return REASON_OK;
}

/* Whether a socket may connect: told at once, where tc would only drop. */
static inline __u32 connections_left(__u32 identity)
{
	struct limit *l = map_lookup(limits, &identity);
	if (!l || !l->connections)
		return REASON_OK;
	struct usage *u = map_lookup(usages, &identity);
	return u && u->connections >= l->connections ? REASON_CONNECTIONS : REASON_OK;
}
