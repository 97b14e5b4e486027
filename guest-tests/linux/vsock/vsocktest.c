// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * A file goes over a connection and comes back. On the host, where the vsock
 * of a guest ends at Unix sockets:
 *
 *	vsocktest give FILE BACK listen PATH
 *	vsocktest give FILE BACK connect PATH PORT
 *
 * sends FILE, says that this is all, and writes what comes then to BACK. In
 * the guest:
 *
 *	vsocktest take FILE connect PORT
 *	vsocktest take FILE listen PORT
 *
 * takes all that comes into FILE, and sends it back. Exits with 3 if nobody
 * listens, with 1 if anything else fails.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/socket.h>
#include <sys/un.h>

#include <linux/vm_sockets.h>

union address {
	struct sockaddr any;
	struct sockaddr_un un;
	struct sockaddr_vm vm;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void send_all(int fd, const char *bytes, size_t left)
{
	while (left) {
		ssize_t gone = send(fd, bytes, left, MSG_NOSIGNAL);

		if (gone < 0)
			die("send");
		bytes += gone;
		left -= gone;
	}
}

/* Sends the file, and says that this is all. */
static void send_file(int fd, const char *path)
{
	static char piece[50000];
	FILE *file = fopen(path, "r");
	size_t length;

	if (!file)
		die(path);
	while ((length = fread(piece, 1, sizeof(piece), file)))
		send_all(fd, piece, length);
	if (ferror(file))
		die(path);
	fclose(file);
	if (shutdown(fd, SHUT_WR))
		die("shutdown");
}

static void receive_file(int fd, const char *path)
{
	static char piece[50000];
	FILE *file = fopen(path, "w");
	ssize_t length;

	if (!file)
		die(path);
	while ((length = recv(fd, piece, sizeof(piece), 0)) > 0)
		fwrite(piece, 1, length, file);
	if (length < 0)
		die("recv");
	if (fclose(file))
		die(path);
}

static int open_socket(union address *to, socklen_t length, int listens)
{
	int fd = socket(to->any.sa_family, SOCK_STREAM, 0), one;

	if (fd < 0)
		die("socket");
	if (!listens) {
		if (connect(fd, &to->any, length)) {
			perror("connect");
			exit(3);
		}
		return fd;
	}
	if (bind(fd, &to->any, length) || listen(fd, 1))
		die("listen");
	one = accept(fd, NULL, NULL);
	if (one < 0)
		die("accept");
	close(fd);
	return one;
}

/* Names the port to the VMM, which says OK and its own port's number. */
static void name_port(int fd, const char *port)
{
	char line[32], *end = line;
	int length = snprintf(line, sizeof(line), "CONNECT %s\n", port);

	send_all(fd, line, length);
	do {
		if (end == line + sizeof(line) || recv(fd, end, 1, 0) != 1) {
			fprintf(stderr, "the guest refuses port %s\n", port);
			exit(1);
		}
	} while (*end++ != '\n');
	if (strncmp(line, "OK ", 3))
		exit(1);
}

int main(int argc, char **argv)
{
	union address to;
	int gives = argc > 4 && !strcmp(argv[1], "give");
	char **where = argv + (gives ? 4 : 3);
	int listens, fd;

	if (argc < 5)
		return 2;
	listens = !strcmp(where[0], "listen");
	memset(&to, 0, sizeof(to));
	if (!gives) {
		to.vm.svm_family = AF_VSOCK;
		to.vm.svm_cid = listens ? VMADDR_CID_ANY : VMADDR_CID_HOST;
		to.vm.svm_port = strtoul(where[1], NULL, 10);
		fd = open_socket(&to, sizeof(to.vm), listens);
		receive_file(fd, argv[2]);
		send_file(fd, argv[2]);
	} else {
		if (argc < 6 + !listens)
			return 2;
		to.un.sun_family = AF_UNIX;
		strncpy(to.un.sun_path, where[1], sizeof(to.un.sun_path) - 1);
		if (listens)
			unlink(where[1]);
		fd = open_socket(&to, sizeof(to.un), listens);
		if (!listens)
			name_port(fd, where[2]);
		send_file(fd, argv[2]);
		receive_file(fd, argv[3]);
	}
	close(fd);
	return 0;
}
