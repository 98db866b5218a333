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
