/* Two ranks, back and forth: latency of 8 bytes in microseconds, bandwidth of 4 MiB in MB/s. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static double round_trip(int rank, char *buffer, int size, int count) {
    MPI_Barrier(MPI_COMM_WORLD);
    double start = MPI_Wtime();
    for (int i = 0; i < count; i++) {
        if (rank == 0) {
            MPI_Send(buffer, size, MPI_CHAR, 1, 0, MPI_COMM_WORLD);
            MPI_Recv(buffer, size, MPI_CHAR, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        } else {
            MPI_Recv(buffer, size, MPI_CHAR, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            MPI_Send(buffer, size, MPI_CHAR, 0, 0, MPI_COMM_WORLD);
        }
    }
    return (MPI_Wtime() - start) / count;
}

int main(int argc, char **argv) {
    enum { LARGE = 4 << 20 };
    int rank;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    char *buffer = calloc(1, LARGE);
    round_trip(rank, buffer, LARGE, 10);
    double small = round_trip(rank, buffer, 8, 20000);
    double large = round_trip(rank, buffer, LARGE, 200);
    if (rank == 0)
        printf("%.3f %.0f\n", small / 2 * 1e6, 2.0 * LARGE / large / 1e6);
    free(buffer);
    MPI_Finalize();
    return 0;
}
