<?php
declare(strict_types=1);

/** A guest book: pages, a form with an upload, a session, JSON, redirects, and errors, as one small application. */
final class Guestbook
{
    private array $routes;

    public function __construct(private string $file)
    {
        $this->routes = [
            ['GET', '#^/$#', 'index'],
            ['POST', '#^/sign$#', 'sign'],
            ['GET', '#^/api/entries/(\d+)$#', 'entry'],
            ['POST', '#^/upload$#', 'upload'],
            ['POST', '#^/raw$#', 'raw'],
            ['GET', '#^/server$#', 'server'],
            ['GET', '#^/visits$#', 'visits'],
            ['GET', '#^/large$#', 'large'],
            ['GET', '#^/stream$#', 'stream'],
            ['GET', '#^/boom$#', 'boom'],
            ['GET', '#^/empty$#', 'nothing'],
            ['GET', '#^/caf%C3%A9$#', 'cafe'],
        ];
    }

    public function run(): void
    {
        $path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
        $method = $_SERVER['REQUEST_METHOD'] === 'HEAD' ? 'GET' : $_SERVER['REQUEST_METHOD'];
        foreach ($this->routes as [$for, $pattern, $action]) {
            if ($for === $method && preg_match($pattern, $path, $found)) {
                $this->$action(...array_slice($found, 1));
                return;
            }
        }
        http_response_code(404);
        header('Content-Type: text/plain; charset=utf-8');
        echo "no page at $path";
    }

    private function entries(): array
    {
        return is_file($this->file) ? json_decode(file_get_contents($this->file), true) : [];
    }

    private function json(mixed $value): void
    {
        header('Content-Type: application/json');
        echo json_encode($value, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES);
    }

    private function index(): void
    {
        echo '<ul>';
        foreach ($this->entries() as $entry) {
            printf('<li>%s: %s</li>', htmlspecialchars($entry['name']), htmlspecialchars($entry['text']));
        }
        echo '</ul>';
    }

    private function sign(): void
    {
        $entries = $this->entries();
        $entries[] = ['name' => $_POST['name'] ?? '', 'text' => $_POST['text'] ?? ''];
        file_put_contents($this->file, json_encode($entries), LOCK_EX);
        header('Location: /', true, 303);
    }

    private function entry(string $number): void
    {
        $entry = $this->entries()[(int) $number] ?? null;
        if ($entry === null) {
            http_response_code(404);
        }
        $this->json($entry);
    }

    private function upload(): void
    {
        $file = $_FILES['file'];
        $this->json(['name' => $file['name'], 'sha1' => sha1_file($file['tmp_name']), 'field' => $_POST['field']]);
    }

    private function raw(): void
    {
        $content = file_get_contents('php://input');
        $this->json(['length' => $_SERVER['CONTENT_LENGTH'] ?? null, 'sha1' => sha1($content)]);
    }

    private function server(): void
    {
        $names = ['HTTP_HOST', 'SERVER_NAME', 'REQUEST_URI', 'QUERY_STRING', 'SCRIPT_NAME', 'SCRIPT_FILENAME', 'DOCUMENT_ROOT', 'REMOTE_ADDR', 'HTTP_X_A', 'HTTP_PROXY'];
        $this->json(array_map(fn ($name) => $_SERVER[$name] ?? null, array_combine($names, $names)));
    }

    private function visits(): void
    {
        session_start();
        $_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
        echo $_SESSION['visits'];
    }

    private function large(): void
    {
        for ($part = 0; $part < 64; $part++) {
            echo str_repeat(chr(97 + $part % 26), 65536);
        }
    }

    private function stream(): void
    {
        foreach (['one', 'two', 'three'] as $part) {
            echo $part, "\n";
            flush();
        }
    }

    private function boom(): void
    {
        throw new RuntimeException('the guest book burns');
    }

    private function nothing(): void
    {
        http_response_code(204);
    }

    private function cafe(): void
    {
        echo 'café';
    }
}
