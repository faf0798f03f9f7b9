"""Entry of a worker process: `python DIR`, with the queue socket as file descriptor 0.

The directory that holds this file is taken off the import path again before the application is imported, so
that the application sees its own directory first, as it would under any other server.
"""

import sys

if __name__ == "__main__":
    from eleven_worker import boot

    del sys.path[0]
    boot.main()
