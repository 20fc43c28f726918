import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.file.Path;
import java.util.Map;
import liquibase.Scope;
import liquibase.command.CommandScope;
import liquibase.resource.DirectoryResourceAccessor;
import org.flywaydb.core.Flyway;

/** Runs Flyway or Liquibase; a line on standard input is a command, and each has one line of answer. */
public class Tools {
    public static void main(String[] args) throws Exception {
        PrintStream answers = System.out;
        System.setOut(System.err); // the tools print there
        Tools tools = new Tools(args[0], args[1], args[2], args[3], Path.of(args[4]));
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = commands.readLine()) != null;) {
            try {
                answers.println("ok " + tools.run(line));
            } catch (Throwable e) {
                e.printStackTrace();
                answers.println("failed " + String.valueOf(e.getMessage()).replace('\n', ' '));
            }
        }
    }

    private final String tool, url, user, password;
    private final Path dir;

    private Tools(String tool, String url, String user, String password, Path dir) {
        this.tool = tool;
        this.url = url;
        this.user = user;
        this.password = password;
        this.dir = dir;
    }

    private String run(String command) throws Exception {
        String[] words = command.split(" ");
        if (tool.equals("flyway")) {
            Flyway flyway = Flyway.configure().dataSource(url, user, password)
                .locations("filesystem:" + dir.resolve("migrations")).load();
            if (words[0].equals("undo")) {
                flyway.undo();
                return "";
            }
            return "" + flyway.migrate().migrationsExecuted;
        }
        return Scope.child(Map.of(Scope.Attr.resourceAccessor.name(), new DirectoryResourceAccessor(dir)), () -> {
            CommandScope scope = new CommandScope(words[0])
                .addArgumentValue("changelogFile", "changelog.yaml")
                .addArgumentValue("url", url).addArgumentValue("username", user).addArgumentValue("password", password);
            if (words.length > 1) {
                scope.addArgumentValue("count", Integer.valueOf(words[1]));
            }
            scope.execute();
            return "";
        });
    }
}
