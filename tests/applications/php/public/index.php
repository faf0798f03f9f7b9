<?php
// The front controller: everything that is no file comes here.
declare(strict_types=1);

require __DIR__ . '/../src/Guestbook.php';

(new Guestbook(getenv('GUESTBOOK_FILE') ?: $_SERVER['GUESTBOOK_FILE']))->run();
