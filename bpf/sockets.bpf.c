/* cgroup hooks: service addresses are translated once, where a socket connects or sends, and what
 * can't succeed is refused at once. Nothing relies on them for safety: tc judges what leaves.
 *
 * Namespaces that aren't the platform's are left alone at the first lookup. */
#include "lib/service.h"

static inline int stay(void)
{
	return 1;
}

int connect4(struct bpf_sock_addr *ctx)
{
	struct address to;
	struct caller *me = caller_of(ctx);
	if (!me)
		return stay();
	from_v4(&to, ctx->user_ip4);
	__u16 port = bpf_ntohs((__u16)ctx->user_port);
	int answer = steer(ctx, me, &to, &port, 1);
	if (answer == STEER_MOVED) {
		ctx->user_ip4 = to.w[3];
		ctx->user_port = bpf_htons(port);
	}
	return answer == STEER_REFUSED ? 0 : 1;
}

int connect6(struct bpf_sock_addr *ctx)
{
	struct address to;
	struct caller *me = caller_of(ctx);
	if (!me)
		return stay();
	to.w[0] = ctx->user_ip6[0];
	to.w[1] = ctx->user_ip6[1];
	to.w[2] = ctx->user_ip6[2];
	to.w[3] = ctx->user_ip6[3];
	__u16 port = bpf_ntohs((__u16)ctx->user_port);
	int answer = steer(ctx, me, &to, &port, 1);
	if (answer == STEER_MOVED) {
		ctx->user_ip6[0] = to.w[0];
		ctx->user_ip6[1] = to.w[1];
		ctx->user_ip6[2] = to.w[2];
		ctx->user_ip6[3] = to.w[3];
		ctx->user_port = bpf_htons(port);
	}
	return answer == STEER_REFUSED ? 0 : 1;
}

int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct address to;
	struct caller *me = caller_of(ctx);
	if (!me)
		return stay();
	from_v4(&to, ctx->user_ip4);
	__u16 port = bpf_ntohs((__u16)ctx->user_port);
	int answer = steer(ctx, me, &to, &port, 0);
	if (answer == STEER_MOVED) {
		ctx->user_ip4 = to.w[3];
		ctx->user_port = bpf_htons(port);
	}
	return answer == STEER_REFUSED ? 0 : 1;
}

int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct address to;
	struct caller *me = caller_of(ctx);
	if (!me)
		return stay();
	to.w[0] = ctx->user_ip6[0];
	to.w[1] = ctx->user_ip6[1];
	to.w[2] = ctx->user_ip6[2];
	to.w[3] = ctx->user_ip6[3];
	__u16 port = bpf_ntohs((__u16)ctx->user_port);
	int answer = steer(ctx, me, &to, &port, 0);
	if (answer == STEER_MOVED) {
		ctx->user_ip6[0] = to.w[0];
		ctx->user_ip6[1] = to.w[1];
		ctx->user_ip6[2] = to.w[2];
		ctx->user_ip6[3] = to.w[3];
		ctx->user_port = bpf_htons(port);
	}
	return answer == STEER_REFUSED ? 0 : 1;
}

/* recvmsg and getpeername show the address that the application asked for. */
static inline int restore4(struct bpf_sock_addr *ctx)
{
	struct address from, service = {};
	__u16 port;
	if (!caller_of(ctx))
		return stay();
	from_v4(&from, ctx->user_ip4);
	port = bpf_ntohs((__u16)ctx->user_port);
	if (find_service(ctx, &from, &port, &service)) {
		ctx->user_ip4 = service.w[3];
		ctx->user_port = bpf_htons(port);
	}
	return 1;
}

static inline int restore6(struct bpf_sock_addr *ctx)
{
	struct address from, service = {};
	__u16 port;
	if (!caller_of(ctx))
		return stay();
	from.w[0] = ctx->user_ip6[0];
	from.w[1] = ctx->user_ip6[1];
	from.w[2] = ctx->user_ip6[2];
	from.w[3] = ctx->user_ip6[3];
	port = bpf_ntohs((__u16)ctx->user_port);
	if (find_service(ctx, &from, &port, &service)) {
		ctx->user_ip6[0] = service.w[0];
		ctx->user_ip6[1] = service.w[1];
		ctx->user_ip6[2] = service.w[2];
		ctx->user_ip6[3] = service.w[3];
		ctx->user_port = bpf_htons(port);
	}
	return 1;
}

int recvmsg4(struct bpf_sock_addr *ctx) { return restore4(ctx); }
int recvmsg6(struct bpf_sock_addr *ctx) { return restore6(ctx); }
int getpeername4(struct bpf_sock_addr *ctx) { return restore4(ctx); }
int getpeername6(struct bpf_sock_addr *ctx) { return restore6(ctx); }

/* Counting a component's open TCP connections, from the moment a socket connects or is accepted. */
static inline void count_socket(struct bpf_sock_ops *ctx)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct caller *me = map_lookup(callers, &cookie);
	struct bpf_sock *sk = ctx->sk;
	if (!me || !sk)
		return;
	__u32 identity = me->identity;
	struct usage *u = map_lookup(usages, &identity);
	if (!u)
		return;
	struct counted *mark = storage_get(counted, sk, BPF_SK_STORAGE_GET_F_CREATE);
	if (!mark) {
		count(COUNT_STORAGE_FAILED);
		return;
	}
	if (mark->identity)
		return;
	mark->identity = identity;
	mark->life = u->life;
	__sync_fetch_and_add(&u->connections, 1);
	bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
}

static inline void forget_socket(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	if (!sk)
		return;
	struct counted *mark = storage_get(counted, sk, 0);
	if (!mark || !mark->identity)
		return;
	__u32 identity = mark->identity;
	struct usage *u = map_lookup(usages, &identity);
	mark->identity = 0;
	if (u && (__u32)u->life == mark->life)
		__sync_fetch_and_add(&u->connections, -1);
}

int sockops(struct bpf_sock_ops *ctx)
{
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB || ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		count_socket(ctx);
	else if (ctx->op == BPF_SOCK_OPS_STATE_CB && ctx->args[1] == BPF_TCP_CLOSE)
		forget_socket(ctx);
	return 1;
}
